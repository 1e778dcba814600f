"""The leakage check finds what was planted, and calls nothing a leak that is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.datasets.building import build
from backend.datasets.checking import benchmark_files, check
from backend.datasets.errors import DatasetError
from backend.datasets.importing import import_dataset
from backend.review.bulk import approve_by_policy
from backend.settings import Workspace
from backend.similarity.exact import sample_text
from backend.similarity.minhash import THRESHOLD, jaccard
from backend.store.samples import Filter
from tests.fixtures.made_samples import put_sample

STORY = (
    "the sprite table lives in bank seven and each of its entries is four bytes wide with the low byte of the "
    "x position first then the y position then the tile number and last the attributes of the sprite"
)


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def lesson(question: str, answer: str) -> dict[str, str]:
    return {"instruction": question, "output": answer}


async def test_planted_leaks_are_found_with_their_places(ws: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "leaky"
    write(folder / "train.jsonl", [
        lesson("What is bank zero?", "The first 64 KiB."),
        lesson("Where do sprites live?", STORY),
        lesson("How large is WRAM?", "128 KiB"),
        lesson("Name the canary", "hafs canary 1234 is here"),
    ])  # fmt: skip
    write(folder / "val.jsonl", [lesson("Where does the table live?", STORY + " today")])
    write(folder / "test.jsonl", [lesson("what  IS bank zero?", "Something else.")])
    benchmark = write(tmp_path / "asm_benchmark.jsonl", [
        {**lesson("How large is WRAM?", "131072 bytes"), "category": "asm", "canary": "hafs canary 1234"},
    ])  # fmt: skip
    await import_dataset(ws, folder)
    report = await check(ws, "leaky", benchmarks=[benchmark])
    found = {(leak.kind, leak.split, leak.row, leak.where, leak.other) for leak in report.leaks}
    assert found == {
        ("exact", "train", 1, "test", 1),
        ("near", "train", 2, "val", 1),
        ("exact", "train", 3, "asm", 1),
        ("canary", "train", 4, "asm", 0),
    }
    assert (report.found, report.rows, report.clean, report.benchmarks) == (4, 6, False, ("asm",))
    near = next(leak for leak in report.leaks if leak.kind == "near")
    assert 0.7 <= near.similarity < 1


async def test_a_leak_is_told_once_and_what_is_less_alike_is_none(ws: Workspace, tmp_path: Path) -> None:
    train, same, less = (
        lesson("Where do sprites live?", STORY),
        lesson("Where do sprites live?", STORY + " today"),
        lesson("Where does the table live?", STORY.replace("first", "foremost")),
    )
    texts = [sample_text(row["instruction"], "", row["output"]) for row in (train, less)]
    assert 0.6 < jaccard(*texts) < THRESHOLD
    write(tmp_path / "one" / "train.jsonl", [train])
    write(tmp_path / "one" / "val.jsonl", [same])
    write(tmp_path / "one" / "test.jsonl", [less])
    await import_dataset(ws, tmp_path / "one")
    report = await check(ws, "one", benchmarks=[])
    assert [(leak.kind, leak.split, leak.where) for leak in report.leaks] == [("exact", "train", "val")]


async def test_a_shared_template_is_no_leak_and_a_built_version_is_clean(ws: Workspace) -> None:
    for n in range(80):
        await put_sample(
            ws, f"t{n}", family=f"f{n}", output=f"LD{'AXY'[n % 3]} #${n:02X} ; {n * 7919 % 1000} {n * 31 % 97}",
            instruction=f"Write the routine {n * 7919 % 1000} that stores value {n} at address {n * 131 % 997}.",
        )  # fmt: skip
    await approve_by_policy(ws, Filter(), "test")
    version = await build(ws, "clean")
    report = await check(ws, "clean")
    assert report.clean, report.leaks[:3]
    assert "opcodes" in report.benchmarks
    assert report.rows == version.train + version.val + version.test == 80


async def test_files_that_were_changed_or_lost_are_told(ws: Workspace) -> None:
    for n in range(12):
        await put_sample(ws, f"t{n}")
    await approve_by_policy(ws, Filter(), "test")
    version = await build(ws, "pilot")
    train = Path(version.path) / "train.jsonl"
    train.write_text(train.read_text().replace("LDA", "LDX", 1))
    report = await check(ws, "pilot", benchmarks=[])
    assert (report.hash_matches, report.clean) == (False, False)
    train.write_text("{broken\n" + train.read_text())
    with pytest.raises(DatasetError, match=r"train\.jsonl, line 1"):
        await check(ws, "pilot", benchmarks=[])
    train.unlink()
    with pytest.raises(DatasetError, match=r"train\.jsonl: No such file"):
        await check(ws, "pilot", benchmarks=[])


async def test_the_workspaces_own_benchmarks_are_among_those_checked(ws: Workspace) -> None:
    mine = write(ws.benchmarks / "mine_benchmark.jsonl", [{**lesson("q", "a"), "category": "asm"}])
    assert mine in benchmark_files(ws)
    assert any(file.name == "opcodes_benchmark.jsonl" for file in benchmark_files(ws))
