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

# Of the adapter's change, by norm. Measured: a 12-step adapter merged into bf16 lost most of its effect.
ACCEPTED_LOSS = 0.1


def work(parameters: MergeParameters, session: Session) -> Done:
    """Writes the merged model, its tokenizer and its chat template; renamed into place when whole.

    Raises:
        Refused: no adapter, a base that is quantised (merging into it damages it), or an adapter of another
            base.
    """
    source = find_model(parameters.adapter, parameters.base_model)
    if source.adapter is None:
        raise Refused("no_adapter", f"{parameters.adapter} is a whole model", "it needs no merging")

    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(source.base)
    if getattr(config, "quantization_config", None):
        raise Refused(
            "quantised_base",
            f"{source.base} is quantised; merging into it would damage the result",
            "give --base_model with the unquantised weights of the same model",
        )
    # On the CPU: a merge needs the memory of the whole model once, and no arithmetic worth a card.
    model: Any = AutoModelForCausalLM.from_pretrained(source.base, dtype=_dtype(parameters.dtype))
    model = attach_adapter(model, source.adapter, trainable=False)
    session.events.emit(
        Started(kind="merge", model=source.name, device="cpu", load_seconds=session.seconds())
    )
    lost = rounding_loss(model)
    if lost > ACCEPTED_LOSS:
        session.warn(
            "merge_rounding",
            f"rounding to {model.dtype} loses {lost:.0%} of the adapter's change",
            "merge with --dtype float32 (or float16), or serve the adapter beside its base",
        )
    merged = model.merge_and_unload(safe_merge=True)
    session.events.emit(Progress(what="merged", done=1, total=2))
    beside = new_folder(Path(parameters.output_dir))
    merged.save_pretrained(str(beside))
    load_tokenizer(source).save_pretrained(str(beside))
    target = put_in_place(beside, Path(parameters.output_dir))
    return Done(artifact=str(target), seconds=session.seconds())


def rounding_loss(model: Any) -> float:
    """How much of the adapter the merged weights' type would lose: |round(W + D) - (W + D)| / |D|.

    Frobenius norms over all adapted layers; 0 is nothing. Above about 1 the merged model is the base again.
    """
    import torch
    from peft.tuners.lora import LoraLayer

    wrong = change = 0.0
    with torch.no_grad():
        for layer in model.modules():
            if not isinstance(layer, LoraLayer) or not hasattr(layer, "get_delta_weight"):
                continue
            weight = layer.get_base_layer().weight
            delta = layer.get_delta_weight("default").float()
            exact = weight.float() + delta
            wrong += float((exact.to(weight.dtype).float() - exact).square().sum())
            change += float(delta.square().sum())
    return (wrong / change) ** 0.5 if change else 0.0


def _dtype(name: str) -> Any:
    import torch

    return "auto" if name == "auto" else getattr(torch, name)


def main(argv: list[str] | None = None) -> int:
    """`python -m backend.worker.merge`."""
    return run("merge", work, argv)


if __name__ == "__main__":
    sys.exit(main())
