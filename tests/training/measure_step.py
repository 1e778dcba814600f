"""What training really keeps, measured on a CPU in a process of its own, as one JSON line: the figures that the
planner's formulas are checked against. Argument: JSON of {"models": {name: config}, "layers": {...}}.
"""

from __future__ import annotations

import json
import sys
import weakref
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from trl.kernels import ChunkedLogProbFunction


class Alive(TorchDispatchMode):
    """Counts the bytes of every tensor that is made while it is on, while it lives; the model's own are not."""

    def __init__(self, own: list[torch.Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {tensor.untyped_storage()._cdata: 0 for tensor in own}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in tree_flatten(made)[0]:
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._sizes:
            self._sizes[storage._cdata] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, storage._cdata)

    def _gone(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)


def step(
    config: dict[str, Any], layers: int, length: int, *, packed: bool, checkpointing: bool
) -> tuple[int, int]:
    """(bytes kept after the forward pass, peak on the way back above them). `packed`: adapters in 16 bits, as
    TRL makes them on a 4-bit base; else fp32, as PEFT makes them on a 16-bit one."""
    kind = config["model_type"]
    made = CONFIG_MAPPING[kind](**{**config, "num_hidden_layers": layers, "pad_token_id": 0})
    base = AutoModelForCausalLM.from_config(made, dtype=torch.bfloat16)
    lora = LoraConfig(r=16, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, lora, autocast_adapter_dtype=not packed)
    model.train()
    if checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    alive = Alive([*model.parameters(), *model.buffers()])
    with alive, torch.autocast("cpu", torch.bfloat16):
        hidden = model.get_base_model().model(
            input_ids=torch.zeros(1, length, dtype=torch.long), use_cache=False
        )
        kept, alive.peak = alive.now, alive.now
        hidden.last_hidden_state.float().sum().backward()
    return kept, alive.peak - kept


def a_token(config: dict[str, Any], *, packed: bool) -> dict[str, float]:
    """Bytes a token: what a layer keeps, what it keeps with checkpointing, and what is needed beside it then."""
    short, long = 128, 384

    def slope(layers: int, checkpointing: bool) -> tuple[float, float]:
        small = step(config, layers, short, packed=packed, checkpointing=checkpointing)
        large = step(config, layers, long, packed=packed, checkpointing=checkpointing)
        return (large[0] - small[0]) / (long - short), (large[1] - small[1]) / (long - short)

    plain, plainer = slope(2, False), slope(1, False)
    kept, fewer = slope(2, True), slope(1, True)
    return {"layer": plain[0] - plainer[0], "checkpoint": kept[0] - fewer[0], "working": kept[1]}


def tile(tokens: int, words: int) -> float:
    """Peak bytes on the way back for each cell of a tile of the head, without Triton."""
    hidden = torch.randn(tokens, 32, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(2 * words, 32, dtype=torch.bfloat16)
    alive = Alive([hidden, weight])
    with alive:
        targets = torch.zeros(tokens, dtype=torch.long)
        outputs = ("log_probs", "entropy", "is_top1")
        log_probs = ChunkedLogProbFunction.apply(
            hidden, weight, None, targets, 1.0, words, None, 1.0, outputs
        )[0]
        alive.peak = alive.now
        (-log_probs.sum()).backward()
    return alive.peak / tokens / words


def packed_bytes(inputs: int, outputs: int) -> float:
    """Bytes a weight of a linear layer in nf4 with double quantisation."""
    layer = Linear4bit(
        inputs, outputs, bias=False, compute_dtype=torch.bfloat16, compress_statistics=True, quant_type="nf4"
    )
    layer.weight.data = torch.randn(outputs, inputs)
    layer = layer.to("cpu")
    state = layer.weight.quant_state
    statistics = (state.absmax, state.state2.absmax)
    held = layer.weight.data.nbytes + sum(tensor.nbytes for tensor in statistics)
    return held / (inputs * outputs)


def parameters(config: dict[str, Any]) -> int:
    """Parameters of the model that transformers builds, on the meta device, as accelerate counts them."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            CONFIG_MAPPING[config["model_type"]](**config, pad_token_id=0)
        )
    return sum(parameter.numel() for parameter in model.parameters())


def main() -> None:
    asked = json.loads(sys.argv[1])
    found = {
        "parameters": {name: parameters(config) for name, config in asked["models"].items()},
        "packed": {name: a_token(config, packed=True) for name, config in asked["layers"].items()},
        "fp32": {name: a_token(config, packed=False) for name, config in asked["layers"].items()},
        "tile": tile(128, 4096),
        "nf4": packed_bytes(1024, 2048),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
