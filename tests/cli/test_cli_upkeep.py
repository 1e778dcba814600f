"""Backup and prune: a copy that can be restored, and nothing removed that was not shown or cannot be made again."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.cli.conftest import Cli

OLD = time.time() - 60 * 86_400


def aged(path: Path) -> Path:
    os.utime(path, (OLD, OLD))
    return path


def test_a_backup_is_a_whole_workspace_again(house: Cli, tmp_path: Path) -> None:
    restored = Cli(tmp_path / "restored")
    target = restored.home / "training" / "hafs.db"
    made = house.json("backup", str(target))
    assert made == {"path": str(target), "size_bytes": target.stat().st_size}
    assert restored.json("samples", "list") == house.json("samples", "list")
    before = target.read_bytes()
    assert "exists already" in house("backup", str(target), code=1).err
    assert target.read_bytes() == before
    house("backup", str(target), "--overwrite")


def test_prune_shows_then_removes_and_leaves_what_cannot_be_made_again(hafs: Cli) -> None:
    hafs("job", "launch", "local", "--", "echo", "old")
    (job,) = hafs.json("job", "list")
    folder = aged(hafs.home / "host" / "jobs" / job["id"])
    log = hafs.home / "logs" / "campaign_old.log"
    log.parent.mkdir(exist_ok=True)
    log.write_text("old\n")
    part = hafs.home / "training" / "half.jsonl.part"
    part.write_text("half")
    kept = [
        hafs.home / "training" / "pilot" / "samples.jsonl",
        hafs.home / "training" / "datasets" / "set_1" / "train.jsonl",
        hafs.home / "training" / "models" / "merged" / "model.safetensors",
        hafs.home / "host" / "runs" / "mine" / "final" / "adapter_model.safetensors",
        hafs.home / "host" / "runs" / "mine" / "checkpoints" / "checkpoint-1" / "state",
        hafs.home / "host" / "jobs" / "unknown-job" / "stdout.log",
    ]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
        aged(aged(path).parent)
    fresh = hafs.home / "logs" / "fresh.log"
    fresh.write_text("new\n")
    waste = {str(folder), str(aged(log)), str(aged(part))}

    shown = hafs.json("prune")
    assert {one["path"] for one in shown["found"]} == waste
    assert shown["removed"] is False
    assert hafs("prune").out.count(str(hafs.home)) == len(waste)
    assert all(Path(path).exists() for path in waste), "showing removes nothing"

    assert hafs.json("prune", "--yes")["removed"] is True
    assert not any(Path(path).exists() for path in waste)
    assert all(path.exists() for path in [*kept, fresh])
    assert hafs.json("prune")["found"] == []
    assert hafs.json("job", "show", job["id"])["state"] == "done", "the job's row stays"
