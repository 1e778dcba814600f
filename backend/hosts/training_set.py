"""Runs on a host, sent there as it is (standard library only, Python 3.9 or newer): brings the training set.

`python training_set.py WANTED.json` makes a venv, installs torch and then the rest, and proves that torch sees
the card. Each step is a line that begins with `step:`; pip's own lines stand between them. The last line is
`result: {...}`. A torch that was built for CUDA is pinned as it is, so nothing that pip does replaces it.
"""

# It speaks by its output, which is the job's log.
# ruff: noqa: T201

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

# Asks the Python that runs it; a driver that is broken must not hide which torch is there.
PROVE = """
import json
found = {"torch": None, "cuda": None, "sees": False, "cards": [], "why": ""}
try:
    import torch
    found.update(torch=torch.__version__, cuda=torch.version.cuda)
    found["sees"] = bool(torch.cuda.is_available())
    if found["sees"]:
        found["cards"] = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
        torch.ones(8, device="cuda").sum().item()
except Exception as error:
    found.update(sees=False, why=f"{type(error).__name__}: {error}")
print("\\n" + json.dumps(found))
"""


def say(text: str) -> None:
    print("step: " + text, flush=True)


def ask_torch(python: str) -> dict[str, Any]:
    asked = subprocess.run([python, "-c", PROVE], capture_output=True, text=True, check=False)
    if asked.returncode != 0:
        return {"torch": None, "cuda": None, "sees": False, "cards": [], "why": asked.stderr.strip()[-500:]}
    found: dict[str, Any] = json.loads(asked.stdout.splitlines()[-1])
    return found


def pip(python: str, *arguments: str) -> None:
    argv = [
        python,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--progress-bar",
        "off",
        *arguments,
    ]
    ended = subprocess.run(argv, check=False).returncode
    if ended != 0:
        sys.exit("pip install {} ended with code {}: see the lines above".format(" ".join(arguments), ended))


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        wanted = json.load(file)
    folder = wanted["venv"]
    python = os.path.join(folder, *(("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")))
    before = ask_torch(sys.executable)
    if not os.path.exists(python):
        # With a CUDA torch in the Python that runs this, the venv sees it and installs none of its own.
        say("making a virtual environment in " + folder)
        inherit = ["--system-site-packages"] if before["cuda"] else []
        in_venv = sys.prefix != sys.base_prefix
        if subprocess.run([sys.executable, "-m", "venv", *inherit, folder], check=False).returncode != 0:
            sys.exit("python -m venv does not work here: install the system's venv package (python3-venv)")
        if (
            inherit and in_venv
        ):  # system-site-packages of a venv made in a venv are the system's, not the venv's
            asked = subprocess.run(
                [sys.executable, "-c", "import site; print('\\n'.join(site.getsitepackages()))"],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            own = subprocess.run(
                [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            with open(os.path.join(own.stdout.strip(), "hafs-inherited.pth"), "w", encoding="utf-8") as file:
                file.write(asked.stdout)
    index = ["--index-url", wanted["index_url"]] if wanted["index_url"] else []
    there = ask_torch(python)
    if there["cuda"]:
        say("keeping torch {}, built for CUDA {}".format(there["torch"], there["cuda"]))
    elif there["torch"] and not wanted["needs_cuda"] and not wanted["torch_given"]:
        say("keeping torch {}".format(there["torch"]))
    else:
        say("installing " + wanted["torch"])
        again = ["--force-reinstall", "--no-deps"] if there["torch"] else []
        pip(python, *again, *index, wanted["torch"])
        there = ask_torch(python)
    if not there["torch"]:
        sys.exit("torch was installed and cannot be imported: " + there["why"])
    pins = os.path.join(folder, "hafs-torch.txt")
    with open(pins, "w", encoding="utf-8") as file:
        file.write("torch=={}\n".format(there["torch"]))
    say("installing " + ", ".join(wanted["libraries"]))
    pip(python, *(["--index-url", wanted["library_index"]] if wanted["library_index"] else []),
        "--constraint", pins, *wanted["libraries"])  # fmt: skip
    say("asking torch for the card")
    after = ask_torch(python)
    print("result: " + json.dumps({"python": python, **after}), flush=True)
    if there["cuda"] and after["torch"] != there["torch"]:
        sys.exit("torch {} took the place of {}".format(after["torch"], there["torch"]))
    if wanted["needs_cuda"] and not after["sees"]:
        sys.exit(
            "torch {} (CUDA {}) does not see the card: {}".format(
                after["torch"], after["cuda"], after["why"] or "torch.cuda.is_available() is false"
            )
        )


if __name__ == "__main__":
    main()
