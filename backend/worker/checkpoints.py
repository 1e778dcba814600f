"""Which checkpoints can be gone on from: complete, readable and finite."""

from __future__ import annotations

import json
from pathlib import Path

_NEEDED = ("trainer_state.json", "optimizer.pt", "scheduler.pt", "training_args.bin")
_WEIGHTS = ("adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json")


def checkpoint_folder(output_dir: str) -> Path:
    """Where a run keeps its checkpoints."""
    return Path(output_dir) / "checkpoints"


def step_of(checkpoint: Path) -> int:
    """The step in the name `checkpoint-N`, or -1."""
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def newest_complete(folder: Path) -> Path | None:
    """The checkpoint of the highest step that has everything; one that a crash cut short is passed over."""
    found = sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True)
    return next((checkpoint for checkpoint in found if not missing_parts(checkpoint)), None)


def missing_parts(checkpoint: Path) -> list[str]:
    """What a checkpoint lacks, by file; empty means that it is complete. Cheap: no tensors are read."""
    missing = [name for name in _NEEDED if not (checkpoint / name).is_file()]
    missing += [] if any(checkpoint.glob("rng_state*")) else ["rng_state.pth"]
    weights = [checkpoint / name for name in _WEIGHTS if (checkpoint / name).is_file()]
    missing += [] if weights else [_WEIGHTS[0]]
    missing += [path.name for path in checkpoint.glob("*.safetensors") if not _whole(path)]
    try:
        json.loads((checkpoint / _NEEDED[0]).read_text("utf-8"))
    except (OSError, ValueError):
        missing.append(_NEEDED[0])
    return list(dict.fromkeys(missing))


def nonfinite_tensors(checkpoint: Path) -> list[str]:
    """Names of the adapter's tensors that hold NaN or infinity."""
    import torch
    from safetensors import safe_open

    found: list[str] = []
    for path in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(str(path), framework="pt") as tensors:
            found += [name for name in tensors.keys() if not torch.isfinite(tensors.get_tensor(name)).all()]  # noqa: SIM118
    return found


def _whole(path: Path) -> bool:
    """A safetensors file is as long as its header says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        if header_bytes > size:
            return False
        try:
            header = json.loads(file.read(header_bytes))
        except ValueError:
            return False
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return size == 8 + header_bytes + max(ends, default=0)
