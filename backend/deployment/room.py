"""What a merge or a conversion will need of a host's memory and disk, asked before it begins."""

from __future__ import annotations

import json
from dataclasses import dataclass

from backend.deployment.steps import DeploymentFailed
from backend.hosts.placing import size_of
from remote import Host, HostError, Probe

GIB = 2**30
BYTES_OF = {
    "f32": 4.0,
    "float32": 4.0,
    "f16": 2.0,
    "float16": 2.0,
    "bf16": 2.0,
    "bfloat16": 2.0,
    "q8_0": 34 / 32,
}
"""Bytes of one weight. Q8_0 has a two-byte scale for every 32 weights of a byte each (ggml's block_q8_0)."""
KEPT_FREE = GIB


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes of memory at the most, and of disk for what is made."""

    memory: int
    disk: int


@dataclass(frozen=True, slots=True)
class Weights:
    """A folder's weights: their bytes, and the bytes of one (2 for bfloat16)."""

    size: int
    each: float

    @property
    def count(self) -> int:
        return round(self.size / self.each)


async def weights_in(host: Host, probe: Probe, folder: str) -> Weights | None:
    """From the safetensors index, else the folder's size, and the number type of config.json; None for a
    folder that is not there yet (a name on a hub)."""
    try:
        config = json.loads(await host.read(f"{folder}/config.json"))
    except HostError:
        return None
    each = BYTES_OF.get(str(config.get("dtype") or config.get("torch_dtype") or "float32"), 4.0)
    try:
        index = json.loads(await host.read(f"{folder}/model.safetensors.index.json"))
        size = int(index["metadata"]["total_size"])
    except (HostError, KeyError, ValueError):
        size = await size_of(host, probe, folder) or 0
    return Weights(size, each)


def merge_need(base: Weights) -> Need:
    """The base once in memory (the adapter's change of one layer beside it is small), and once on the disk."""
    return Need(round(base.size * 1.1), base.size)


def convert_need(model: Weights, outtype: str) -> Need:
    """The converter reads one tensor at a time; a GGUF has the weights in their new type."""
    return Need(min(model.size, 2 * GIB), round(model.count * BYTES_OF[outtype]))


def require_room(probe: Probe, need: Need, what: str) -> None:
    """Raises DeploymentFailed where the host's disk or memory is too small, with both figures."""
    if need.disk + KEPT_FREE > probe.disk_free_bytes:
        raise DeploymentFailed(
            f"{what} writes {_gib(need.disk)}, and {probe.host} has {_gib(probe.disk_free_bytes)} free on its "
            f"disk ({_gib(KEPT_FREE)} stays free). Make room there (hafs-tui prune), or give another --host"
        )
    if probe.memory_bytes is not None and need.memory > probe.memory_bytes:
        raise DeploymentFailed(
            f"{what} needs {_gib(need.memory)} of memory, and {probe.host} has {_gib(probe.memory_bytes)}. "
            "Give another --host, or serve the adapter beside its base by vLLM, which needs no merging"
        )


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
