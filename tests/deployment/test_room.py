"""Memory and disk are asked for before a merge or a conversion begins."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from backend.deployment.gguf import convert_to_gguf
from backend.deployment.room import GIB, Need, Weights, convert_need, merge_need, require_room, weights_in
from backend.deployment.steps import DeploymentFailed
from backend.hosts.catalog import open_named_host
from backend.settings import Workspace
from backend.store import jobs


async def test_a_14b_is_planned_from_its_index(ws: Workspace, tmp_path: Path) -> None:
    total = 29_540_067_328  # Qwen2.5-14B's model.safetensors.index.json
    (tmp_path / "config.json").write_text('{"torch_dtype": "bfloat16"}')
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}}))
    async with open_named_host(ws, "local") as host:
        probe = await host.probe()
        weights = await weights_in(host, probe, str(tmp_path))
        assert await weights_in(host, probe, "hub:Qwen/Qwen2.5-14B") is None
    assert weights == Weights(total, 2.0)
    assert weights.count == 14_770_033_664
    assert convert_need(weights, "f16").disk == total
    assert convert_need(weights, "q8_0").disk == round(weights.count * 1.0625)
    roomy = replace(probe, disk_free_bytes=40 * GIB, memory_bytes=64 * GIB)
    require_room(roomy, merge_need(weights), "merging")
    with pytest.raises(DeploymentFailed, match=r"merging writes 27\.5 GiB, and local has 20\.0 GiB free"):
        require_room(replace(roomy, disk_free_bytes=20 * GIB), merge_need(weights), "merging")
    with pytest.raises(DeploymentFailed, match=r"merging needs 30\.3 GiB of memory, and local has 16\.0 GiB"):
        require_room(replace(roomy, memory_bytes=16 * GIB), merge_need(weights), "merging")


async def test_without_room_no_job_begins(ws: Workspace, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"dtype": "float16"}')
    (tmp_path / "model.safetensors.index.json").write_text('{"metadata": {"total_size": 1000000000000000}}')
    with pytest.raises(DeploymentFailed, match="Make room there"):
        await convert_to_gguf(ws, f"path:{tmp_path}")
    assert await jobs.every(ws.db) == []


def test_a_need_is_what_is_written() -> None:
    assert merge_need(Weights(100, 2.0)) == Need(110, 100)
