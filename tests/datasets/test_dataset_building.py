"""Dataset versions: frozen, whole, reproducible, and split so that nothing that belongs together is parted."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from backend.datasets import building
from backend.datasets.building import build
from backend.datasets.catalog import find, resolve_folder, show, versions
from backend.datasets.errors import DatasetError
from backend.datasets.splits import SPLITS, Fractions
from backend.review import deciding
from backend.review.bulk import approve_by_policy
from backend.settings import Workspace
from backend.store.leases import LeaseHeldError
from backend.store.samples import Filter, GateRow, insert_gates
from tests.fixtures.made_samples import put_sample


def rows(folder: str | Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(folder) / name).read_text("utf-8").splitlines()]


async def put_families(ws: Workspace, families: int = 20, each: int = 3) -> list[int]:
    return [
        await put_sample(
            ws,
            f"f{f}n{n}",
            family=f"family {f}",
            output=f"LDA #${f:02X}{n:02X}",
            domain="asm" if f % 2 else "text",
        )
        for f in range(families)
        for n in range(each)
    ]


async def test_a_version_holds_the_approved_split_by_family_in_the_origins_layout(ws: Workspace) -> None:
    made = await put_families(ws)
    await approve_by_policy(ws, Filter(), "test")
    await deciding.reject(ws, made[0], "off the subject")
    gated = await put_sample(ws, "too short", state="gated")
    async with ws.db.transaction() as transaction:
        await insert_gates(transaction, gated, [GateRow("length", False, 3.0, "3 characters, 10 are wanted")])
    await put_sample(ws, "nobody decided")

    version = await build(ws, "pilot")

    folder = Path(version.path)
    assert folder.parent == ws.datasets
    assert folder.name.startswith("pilot_20")
    assert (version.name, version.version) == ("pilot", 1)
    assert {file.name for file in folder.iterdir()} == {
        "train.jsonl", "val.jsonl", "test.jsonl", "stats.json", "metadata.json", "rejected.jsonl",
        "rejection_summary.json",
    }  # fmt: skip
    homes = defaultdict(set)
    uids = []
    for split, count in zip(SPLITS, (version.train, version.val, version.test), strict=True):
        found = rows(folder, f"{split}.jsonl")
        assert len(found) == count > 0
        for row in found:
            assert row.keys() == {"instruction", "output", "_metadata"}
            homes[row["_metadata"]["family"]].add(split)
            uids.append(row["_metadata"]["sample_id"])
    assert all(len(home) == 1 for home in homes.values())
    assert len(uids) == len(set(uids)) == len(made) - 1

    refused = {row["_metadata"]["sample_id"]: row for row in rows(folder, "rejected.jsonl")}
    assert refused["f0n0"]["rejection_reason"] == "off the subject"
    assert refused["too short"]["rejection_reason"] == "length"
    assert refused["too short"]["rejection_details"] == {
        "figure": 3.0,
        "reason": "3 characters, 10 are wanted",
    }
    summary = json.loads((folder / "rejection_summary.json").read_text())
    assert summary["by_reason"] == {"off the subject": 1, "length": 1}
    stats = json.loads((folder / "stats.json").read_text())
    assert stats["splits"] == {"train": version.train, "val": version.val, "test": version.test}
    assert sum(stats["domains"]["asm"].values()) == 30

    metadata = json.loads((folder / "metadata.json").read_text())
    assert (metadata["content_hash"], metadata["seed"]) == (version.content_hash, 42)
    assert (
        metadata["files"]["train.jsonl"] == hashlib.sha256((folder / "train.jsonl").read_bytes()).hexdigest()
    )
    listed = {uid for split in SPLITS for _, uid, _ in metadata["samples"][split]}
    assert listed == set(uids)
    recorded = await ws.db.fetch_all("SELECT split, count(*) FROM dataset_rows GROUP BY split")
    assert {row[0]: row[1] for row in recorded} == stats["splits"]


async def test_samples_that_ask_the_same_are_never_parted(ws: Workspace) -> None:
    for n in range(60):
        await put_sample(
            ws, f"q{n}", instruction=f"Question {n // 3}?", family=f"own {n}", output=f"answer {n}"
        )
    await approve_by_policy(ws, Filter(), "test")
    version = await build(ws, "asked", fractions=Fractions(0.2, 0.2))
    homes = defaultdict(set)
    for split in SPLITS:
        for row in rows(version.path, f"{split}.jsonl"):
            homes[row["instruction"]].add(split)
    assert len(homes) == 20
    assert all(len(home) == 1 for home in homes.values())


async def test_a_version_is_frozen_and_the_next_one_shows_what_changed(ws: Workspace) -> None:
    made = await put_families(ws)
    await approve_by_policy(ws, Filter(), "test")
    first = await build(ws, "pilot", seed=7)
    before = {file.name: file.read_bytes() for file in Path(first.path).iterdir()}
    again = await build(ws, "pilot", seed=7)
    assert (again.version, again.content_hash) == (2, first.content_hash)
    assert again.path != first.path, "two versions of one second have folders of their own"
    assert (Path(again.path) / "train.jsonl").read_bytes() == before["train.jsonl"]
    assert (await build(ws, "pilot", seed=8)).content_hash == first.content_hash
    await deciding.edit(ws, made[4], output="LDA #$7F")
    changed = await build(ws, "pilot", seed=7)
    assert changed.content_hash != first.content_hash
    assert {file.name: file.read_bytes() for file in Path(first.path).iterdir()} == before
    revision = "SELECT revision FROM dataset_rows WHERE dataset_id = ? AND sample_id = ?"
    assert await ws.db.fetch_value(revision, (first.id, made[4])) == 1
    assert await ws.db.fetch_value(revision, (changed.id, made[4])) == 2


async def test_several_filters_are_joined(ws: Workspace) -> None:
    await put_families(ws)
    await approve_by_policy(ws, Filter(), "test")
    version = await build(ws, "both", [Filter(domain="asm"), Filter(domain="text"), Filter(domain="asm")])
    assert version.train + version.val + version.test == 60


async def test_an_empty_set_and_a_bad_name_are_refused_with_the_remedy(ws: Workspace) -> None:
    with pytest.raises(DatasetError, match="campaign create"):
        await build(ws, "none")
    await put_families(ws, 2)
    with pytest.raises(DatasetError, match="6 wait for review"):
        await build(ws, "none")
    for name in ("../up", "", "a@2", ".hidden", "a b"):
        with pytest.raises(DatasetError, match="cannot name a dataset"):
            await build(ws, name)
    assert not ws.datasets.exists() or not list(ws.datasets.iterdir())


async def test_a_build_that_fails_leaves_nothing_and_a_second_builder_waits_its_turn(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_families(ws)
    await approve_by_policy(ws, Filter(), "test")

    def full(folder: Path) -> str:
        raise OSError(28, "No space left on device", str(folder))

    with monkeypatch.context() as patch:
        patch.setattr(building, "hash_of_folder", full)
        with pytest.raises(OSError, match="No space"):
            await build(ws, "pilot")
    assert list(ws.datasets.iterdir()) == []
    assert await versions(ws) == []

    both = await asyncio.gather(build(ws, "pilot"), build(ws, "pilot"), return_exceptions=True)
    assert sum(isinstance(one, LeaseHeldError) for one in both) <= 1
    assert len(await versions(ws)) == sum(not isinstance(one, BaseException) for one in both) >= 1


async def test_versions_are_found_by_name_number_and_path(ws: Workspace) -> None:
    await put_families(ws)
    await approve_by_policy(ws, Filter(), "test")
    first, second = await build(ws, "pilot"), await build(ws, "pilot")
    assert (await find(ws, "pilot")).id == second.id
    assert (await find(ws, "pilot@1")).id == first.id
    assert [version.id for version in await versions(ws)] == [second.id, first.id]
    assert await resolve_folder(ws, "pilot@1") == Path(first.path)
    assert await resolve_folder(ws, first.path) == Path(first.path)
    for wrong in ("pilot@3", "other", "pilot@x"):
        with pytest.raises(DatasetError, match="pilot"):
            await find(ws, wrong)
    with pytest.raises(DatasetError, match="neither a dataset nor a path"):
        await resolve_folder(ws, "nowhere/at/all")
    shown = await show(ws, "pilot@1")
    assert (shown.missing, shown.stats["total"]) == ([], 60)
    (Path(first.path) / "val.jsonl").unlink()
    assert (await show(ws, "pilot@1")).missing == ["val.jsonl"]
