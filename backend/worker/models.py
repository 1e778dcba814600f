"""Finds and loads models: a base, an adapter on its base, in the type that the device can use."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.worker.run import Refused, Session

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_FINGERPRINT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model comes from: a base, and perhaps an adapter's folder on it. Folders are absolute."""

    base: str
    adapter: Path | None = None

    @property
    def name(self) -> str:
        """What people know it by."""
        return str(self.adapter or self.base)

    @property
    def tokenizer(self) -> str:
        """Where its tokenizer and chat template lie: beside the adapter where it has its own."""
        if self.adapter and (self.adapter / "tokenizer_config.json").exists():
            return str(self.adapter)
        return self.base


def find_model(name: str, base_override: str = "") -> ModelSource:
    """A model folder, an adapter's folder, or a hub name (`path:` and `hub:` in front are allowed).

    Raises:
        Refused: a path that is not there, a folder that holds no model, an adapter whose base is not there
            or whose base is known to be another one.
    """
    place = _folder(name)
    if place is None:
        return ModelSource(name.removeprefix("hub:"))
    if not (place / ADAPTER_CONFIG).exists():
        return ModelSource(str(_checked_base(place)))
    named = base_override or json.loads((place / ADAPTER_CONFIG).read_text("utf-8")).get(
        "base_model_name_or_path"
    )
    if not named:
        raise Refused("unknown_base", f"{place} does not name its base", "give --base_model")
    try:
        base_place = _folder(named)
    except Refused as error:
        raise Refused(
            "unknown_base", f"the base of {place}: {error.message}", "give --base_model with where it lies"
        ) from None
    base = str(_checked_base(base_place)) if base_place else named.removeprefix("hub:")
    _check_same_base(place, base)
    return ModelSource(base, place)


def fingerprint(base: str) -> str:
    """Tells one base's weights from another's: sha256 over the tensors' names, shapes and first mebibyte.

    Empty for a name that is no folder, and for a folder without safetensors.
    """
    files = sorted(Path(base).glob("*.safetensors")) if os.path.isdir(base) else []
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            digest.update(file.read(header_bytes))
            digest.update(file.read(_FINGERPRINT_BYTES))
    return digest.hexdigest()[:32] if files else ""


def load_tokenizer(source: ModelSource) -> Any:
    """The tokenizer, with a pad token (its EOS where it has none: labels and masks never judge by its id).

    Raises:
        Refused: the folder or the hub has no tokenizer.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source.tokenizer)
    except (OSError, ValueError) as error:
        raise _not_loadable(source.tokenizer, error) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def device() -> str:
    """`cuda` where torch sees a card, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def choose_dtype(bf16: bool, fp16: bool = False) -> Any:
    """The type of the weights: as asked; unasked bf16 on a card that has it, else fp32."""
    import torch

    if fp16:
        return torch.float16
    if bf16 or (torch.cuda.is_available() and torch.cuda.is_bf16_supported()):
        return torch.bfloat16
    return torch.float32


def load_base(source: ModelSource, dtype: Any, load_in_4bit: bool = False) -> Any:
    """The base on its device, in nf4 with double quantisation where asked.

    Raises:
        Refused: the folder or the hub cannot give a model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True}  # a .bin is a pickle
    if load_in_4bit:
        options["quantization_config"] = _nf4()
    if device() == "cuda":
        options["device_map"] = {"": torch.cuda.current_device()}
    try:
        model = AutoModelForCausalLM.from_pretrained(source.base, **options)
    except (OSError, ValueError) as error:
        raise _not_loadable(source.base, error) from error
    if load_in_4bit:
        _keep_gradients_right(model)
    return model


def attach_adapter(model: Any, adapter: Path, trainable: bool) -> Any:
    """The adapter on its base.

    Raises:
        Refused: its weights are no safetensors, or its shapes are of another base.
    """
    from peft import PeftModel

    if not (adapter / ADAPTER_WEIGHTS).is_file():  # peft would look for a pickle
        raise Refused(
            "unknown_model", f"{adapter} has no {ADAPTER_WEIGHTS}", "save the adapter as safetensors"
        )
    try:
        return PeftModel.from_pretrained(model, str(adapter), is_trainable=trainable)
    except (RuntimeError, ValueError) as error:
        raise Refused(
            "wrong_base",
            f"the adapter {adapter} does not fit this base: {str(error).splitlines()[0]}",
            "give --base_model with the base that it was trained on",
        ) from error


def load_for_inference(source: ModelSource, bf16: bool, session: Session) -> Any:
    """The model ready to answer, its adapter folded into the weights where that loses nothing.

    In 16 bits it stays beside them: a young adapter's changes are smaller than the weights' rounding, and
    folding them in undid much of the training (loss 0.68 as trained, 1.11 folded into bf16).
    """
    import torch

    dtype = choose_dtype(bf16)
    model = load_base(source, dtype)
    if source.adapter:
        model = attach_adapter(model, source.adapter, trainable=False)
        if dtype is torch.float32:
            model = model.merge_and_unload()
    if not model.config.eos_token_id and not model.generation_config.eos_token_id:
        session.warn("no_eos", f"{source.name} names no end token", "answers end by length only")
    return model.eval()


def _folder(name: str) -> Path | None:
    """The absolute folder that a name means, or None for a hub name."""
    bare = name.removeprefix("path:")
    place = Path(bare).expanduser()
    if place.is_dir():
        return place.resolve()
    looks_like_path = (
        bare != name or bare[:1] in "./~\\" or place.is_absolute() or bare.count("/") > 1 or "\\" in bare
    )
    if looks_like_path and not name.startswith("hub:"):
        raise Refused(
            "unknown_model", f"{bare} is not a folder here", "copy the model to the host or correct the path"
        )
    return None


def _not_loadable(place: str, error: Exception) -> Refused:
    remedy = "give a model's folder that is on the host, or a hub name that it can fetch"
    return Refused("unknown_model", f"{place} cannot be loaded: {error}", remedy)


def _checked_base(place: Path) -> Path:
    if not (place / "config.json").exists():
        raise Refused("unknown_model", f"{place} has no config.json", "give a model's folder or an adapter's")
    return place


def _check_same_base(adapter: Path, base: str) -> None:
    """An adapter that we trained knows its base's fingerprint."""
    notes = adapter / "recipe.json"
    if not notes.exists():
        return
    expected = json.loads(notes.read_text("utf-8")).get("base_fingerprint", "")
    found = fingerprint(base)
    if expected and found and expected != found:
        raise Refused(
            "wrong_base",
            f"the adapter {adapter} was trained on another base than {base}",
            "give --base_model with the base that it was trained on",
        )


def _nf4() -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _keep_gradients_right(model: Any) -> None:
    """On a CPU with AVX512_BF16 an evaluation repacks the weights and later gradients are silently wrong."""
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.support_avx512bf16_for_cpu = False
