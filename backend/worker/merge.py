"""Folds an adapter into its unquantised base: one model folder that anything can load."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from backend.contract.events import Done, Progress, Started
from backend.contract.job import MergeParameters
from backend.worker.folders import new_folder, put_in_place
from backend.worker.models import attach_adapter, find_model, load_tokenizer
from backend.worker.run import Refused, Session, run

ACCEPTED_SHARE = 0.9


def work(parameters: MergeParameters, session: Session) -> Done:
    """Writes the merged model, its tokenizer and its chat template; renamed into place when whole.

    Raises:
        Refused: no adapter, a base that is quantised (merging into it damages it), or an adapter of another
            base.
    """
    source = find_model(parameters.adapter, parameters.base_model)
    if source.adapter is None:
        raise Refused("no_adapter", f"{parameters.adapter} is a whole model", "it needs no merging")

    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(source.base)
    if getattr(config, "quantization_config", None):
        raise Refused(
            "quantised_base",
            f"{source.base} is quantised; merging into it would damage the result",
            "give --base_model with the unquantised weights of the same model",
        )
    # On the CPU: a merge needs the memory of the whole model once, and no arithmetic worth a card.
    stored = config.dtype or torch.float32
    wanted = stored if parameters.dtype == "auto" else getattr(torch, parameters.dtype)
    # A narrower type is rounded to once, at the end: rounding the base first and the sum again loses more.
    added_in = stored if wanted == stored else torch.float32
    model: Any = AutoModelForCausalLM.from_pretrained(source.base, dtype=added_in, use_safetensors=True)
    model = attach_adapter(model, source.adapter, trainable=False)
    session.events.emit(
        Started(kind="merge", model=source.name, device="cpu", load_seconds=session.seconds())
    )
    kept = surviving_share(model, wanted)
    if kept < ACCEPTED_SHARE:
        session.warn(
            "merge_rounding",
            f"rounded to {str(wanted).removeprefix('torch.')}, {kept:.0%} of the adapter's change is left",
            "merge with --dtype float32 or float16, or serve the adapter beside its base",
        )
    merged = model.merge_and_unload(safe_merge=True).to(wanted)
    session.events.emit(Progress(what="merged", done=1, total=2))
    beside = new_folder(Path(parameters.output_dir))
    merged.save_pretrained(str(beside))
    load_tokenizer(source).save_pretrained(str(beside))
    target = put_in_place(beside, Path(parameters.output_dir))
    return Done(artifact=str(target), seconds=session.seconds())


def surviving_share(model: Any, dtype: Any) -> float:
    """How much of the adapter's change D is left in weights W of a narrower type.

    <round(W + D) - round(W), D> / <D, D> over all adapted layers: 1 is all of it; near 0 the changes are
    smaller than the steps between the type's numbers, and the merged model is the base again.
    """
    import torch
    from peft.tuners.lora import LoraLayer

    left = change = 0.0
    with torch.no_grad():
        for layer in model.modules():
            if not isinstance(layer, LoraLayer) or not hasattr(layer, "get_delta_weight"):
                continue
            weight = layer.get_base_layer().weight.float()
            delta = layer.get_delta_weight("default").float()
            became = (weight + delta).to(dtype).float() - weight.to(dtype).float()
            left += float((became * delta).sum())
            change += float(delta.square().sum())
    return left / change if change else 1.0


def main(argv: list[str] | None = None) -> int:
    """`python -m backend.worker.merge`."""
    return run("merge", work, argv)


if __name__ == "__main__":
    sys.exit(main())
