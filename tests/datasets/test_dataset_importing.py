"""Import and export: every known format comes in, bad lines cost only themselves, nothing comes in twice."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from backend.contract.rows import training_messages
from backend.datasets import intake
from backend.datasets.errors import DatasetError
from backend.datasets.exporting import FORMATS, export_dataset, export_samples
from backend.datasets.importing import import_dataset, import_samples
from backend.datasets.intake import ImportReport
from backend.review import deciding
from backend.review.queues import counts
from backend.settings import Workspace, open_workspace
from backend.store import decisions, pairs, samples
from backend.store.samples import Filter

ORIGIN = {
    "instruction": "Load one into A.",
    "output": "LDA #$01\n",
    "input": "8-bit A",
    "_metadata": {
        "sample_id": "asm_1",
        "domain": "asm",
        "source": "gemini",
        "quality_score": 0.72,
        "timestamp": "2025-12-21T10:15:00.123456",
        "kg_entities": ["A", "LDA"],
    },
}
LEGACY = {"instruction": "Clear carry.", "output": "CLC", "metadata": {"sample_id": "asm_2", "domain": "asm"}}
CHAT = {
    "messages": [
        {"role": "system", "content": "You write 65816."},
        {"role": "user", "content": "Set carry."},
        {"role": "assistant", "content": "SEC"},
    ]
}
ALPACA = {"text": "### Instruction:\nAdd.\n\n### Input:\n$02\n\n### Response:\nADC #$02"}
BENCHMARK = {"instruction": "What is WRAM?", "input": "", "output": "Work memory: 日本", "category": "text"}
REJECTED = {**LEGACY, "metadata": {"sample_id": "asm_9", "quality_score": 0.2, "domain": "errors"},
            "rejection_reason": "low_quality", "rejection_details": {"score": 0.2}}  # fmt: skip
PAIR = {"prompt": "Load two.", "chosen": "LDA #$02", "rejected": "LDX #$02", "source": "judge"}


def write(path: Path, lines: Iterable[dict[str, Any] | str]) -> Path:
    texts = (line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)
    path.write_text("".join(text + "\n" for text in texts), "utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


async def test_every_known_format_comes_in(ws: Workspace, tmp_path: Path) -> None:
    file = write(tmp_path / "all.jsonl", [ORIGIN, LEGACY, CHAT, ALPACA, BENCHMARK, REJECTED, PAIR])
    seen: list[ImportReport] = []
    report = await import_samples(ws, file, domain="guessed", on_progress=seen.append)
    assert (report.read, report.inserted, report.pairs, report.bad) == (7, 7, 1, 0)
    assert report.quarantine is None
    assert not list((ws.training / "quarantine").iterdir())
    assert seen[-1].inserted == 7
    assert await counts(ws) == {"pending": 5, "approved": 0, "rejected": 0, "flagged": 0, "gated": 1}
    found = {s.instruction: s for s in await samples.by_ids(ws.db, await samples.ids(ws.db, Filter()))}
    first = found["Load one into A."]
    assert (first.uid, first.domain, first.score, first.source) == ("asm_1", "asm", 0.72, "gemini")
    assert found["Set carry."].domain == "guessed"
    assert (found["Add."].input, found["Add."].output) == ("$02", "ADC #$02")
    gates = await samples.gates(ws.db, (await samples.by_uid(ws.db, "asm_9")).id)  # type: ignore[union-attr]
    assert [(gate.name, gate.passed, gate.reason) for gate in gates] == [("origin", False, "low_quality")]
    (pair,) = await pairs.every(ws.db)
    assert (pair.chosen, pair.source, pair.state) == ("LDA #$02", "judge", "pending")


async def test_again_is_known_also_after_an_edit_and_another_text_of_one_id_is_set_aside(
    ws: Workspace, tmp_path: Path
) -> None:
    file = write(tmp_path / "a.jsonl", [ORIGIN, CHAT, ALPACA, ALPACA, PAIR])
    assert (await import_samples(ws, file)).known == 1, "the same row without an id, twice in one file"
    sample = await samples.by_uid(ws.db, "asm_1")
    assert sample is not None
    await deciding.edit(ws, sample.id, output="LDA #$FF")
    again = await import_samples(ws, file)
    assert (again.inserted, again.known, again.bad) == (0, 5, 0)
    await export_samples(ws, tmp_path / "out.jsonl")
    assert (await import_samples(ws, tmp_path / "out.jsonl")).known == 3
    other = write(tmp_path / "b.jsonl", [{**ORIGIN, "output": "STZ $00"}])
    report = await import_samples(ws, other)
    assert report.bad == 1
    assert "asm_1" in report.problems[0].reason


async def test_bad_lines_are_told_by_line_and_kept_byte_for_byte(ws: Workspace, tmp_path: Path) -> None:
    file = write(
        tmp_path / "bad.jsonl", [ORIGIN, "{broken", {"instruction": "x", "output": "  "}, '["list"]', ""]
    )
    with file.open("ab") as stream:
        stream.write(b'{"instruction": "\xff", "output": "x"}\n')
        stream.write(json.dumps(LEGACY).encode() + b"\n")
        stream.write(b'{"prompt": "p", "chosen": "same", "rejected": "same"}\n{"instruction": "cut", "outp')
    report = await import_samples(ws, file)
    assert (report.read, report.inserted, report.bad) == (8, 2, 6)
    assert [problem.line for problem in report.problems] == [2, 3, 4, 6, 8, 9]
    assert all(problem.reason for problem in report.problems)
    assert report.quarantine is not None
    kept = read(report.quarantine)
    raw = [row["raw"].encode("utf-8", "surrogateescape") for row in kept]
    lines = file.read_bytes().splitlines(keepends=True)
    assert raw == [lines[problem.line - 1] for problem in report.problems]


async def test_a_file_that_is_not_there_is_named(ws: Workspace, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"gone\.jsonl"):
        await import_samples(ws, tmp_path / "gone.jsonl")


async def test_approved_imports_are_a_policys_decisions(ws: Workspace, tmp_path: Path) -> None:
    await import_samples(ws, write(tmp_path / "a.jsonl", [ORIGIN, REJECTED]), approve=True)
    sample = await samples.by_uid(ws.db, "asm_1")
    assert sample is not None
    assert sample.state == "approved"
    (decision,) = await decisions.of_sample(ws.db, sample.id)
    assert (decision.reviewer, decision.reviewer_kind) == ("import", "policy")
    rebuilt = await deciding.rebuilt(ws, sample.id)
    assert (rebuilt.state, rebuilt.decided_at) == (sample.state, sample.decided_at)
    assert (await counts(ws))["gated"] == 1


async def test_what_was_read_comes_out_without_loss(ws: Workspace, tmp_path: Path) -> None:
    given = [ORIGIN, CHAT, BENCHMARK, REJECTED]
    await import_samples(ws, write(tmp_path / "in.jsonl", given))
    assert await export_samples(ws, tmp_path / "out.jsonl") == 4
    out = read(tmp_path / "out.jsonl")
    first = out[0]
    assert {key: first[key] for key in ("instruction", "input", "output")} == {
        key: ORIGIN[key] for key in ("instruction", "input", "output")
    }
    assert ORIGIN["_metadata"].items() <= first["_metadata"].items()  # type: ignore[attr-defined]
    assert out[1]["messages"] == CHAT["messages"]
    assert out[2]["_metadata"]["category"] == "text"
    assert out[2]["output"] == "Work memory: 日本"
    assert (out[3]["rejection_reason"], out[3]["rejection_details"]) == ("low_quality", {"score": 0.2})
    async with open_workspace(tmp_path / "second") as other:
        await import_samples(other, tmp_path / "out.jsonl")
        await export_samples(other, tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()


@pytest.mark.parametrize("format", FORMATS)
async def test_every_export_format_trains(ws: Workspace, tmp_path: Path, format: Any) -> None:
    await import_samples(ws, write(tmp_path / "in.jsonl", [ORIGIN, LEGACY, ALPACA]), approve=True)
    assert await export_samples(ws, tmp_path / "out.jsonl", Filter(states=("approved",)), format=format) == 3
    wanted = [
        ("Load one into A.\n\n8-bit A", "LDA #$01\n"),
        ("Clear carry.", "CLC"),
        ("Add.\n\n$02", "ADC #$02"),
    ]
    trained = [training_messages(row) for row in read(tmp_path / "out.jsonl")]
    assert [(prompt[-1]["content"], answer[-1]["content"]) for prompt, answer in trained] == wanted


async def test_a_folder_of_the_origin_becomes_a_version_with_its_own_splits(
    ws: Workspace, tmp_path: Path
) -> None:
    folder = tmp_path / "alttp_20251221_101500"
    folder.mkdir()
    write(folder / "train.jsonl", [ORIGIN, LEGACY, "broken"])
    write(folder / "val.jsonl", [CHAT])
    write(folder / "test.jsonl", [BENCHMARK, ORIGIN])
    write(folder / "rejected.jsonl", [REJECTED])
    version, report = await import_dataset(ws, folder)
    assert (version.name, version.train, version.val, version.test) == ("alttp", 2, 1, 1)
    assert (report.inserted, report.known, report.bad) == (5, 1, 1), "a row of train is taken out of test"
    assert len(read(Path(version.path) / "rejected.jsonl")) == 1
    exported = await export_dataset(ws, "alttp@1", tmp_path / "out", format="messages")
    assert exported == {"train": 2, "val": 1, "test": 1}
    assert read(tmp_path / "out" / "val.jsonl")[0]["messages"] == CHAT["messages"]
    again, _ = await import_dataset(ws, folder)
    assert (again.version, again.content_hash) == (2, version.content_hash)


async def test_a_single_file_is_split_and_a_folder_without_splits_refused(
    ws: Workspace, tmp_path: Path
) -> None:
    lines = [{"instruction": f"Question {n}?", "output": f"answer {n}"} for n in range(50)]
    version, _ = await import_dataset(ws, write(tmp_path / "mine.jsonl", [*lines, REJECTED]))
    assert (version.name, version.train, version.val, version.test) == ("mine", 40, 5, 5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"no train\.jsonl"):
        await import_dataset(ws, tmp_path / "empty")
    with pytest.raises(DatasetError, match="no row could be imported"):
        await import_dataset(ws, write(tmp_path / "pairs.jsonl", [PAIR]))


IMPORTER = """
import asyncio, sys
from pathlib import Path
from backend.datasets import intake
from backend.datasets.importing import import_samples
from backend.settings import open_workspace

intake.BATCH = 50

async def main():
    async with open_workspace(Path(sys.argv[1])) as ws:
        await import_samples(ws, Path(sys.argv[2]), on_progress=lambda r: print(r.inserted, flush=True))

asyncio.run(main())
"""


async def test_an_import_that_was_killed_goes_on_and_doubles_nothing(tmp_path: Path) -> None:
    lines = [{"instruction": f"Question {n}?", "output": f"answer {n}"} for n in range(3000)]
    file, home = write(tmp_path / "many.jsonl", lines), tmp_path / "home"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", IMPORTER, str(home), str(file), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    for _ in range(5):
        said = int(await process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    await process.wait()
    async with open_workspace(home) as ws:
        stored = sum((await counts(ws)).values())
        assert said <= stored < 3000
        assert stored % 50 == 0
        report = await import_samples(ws, file)
        assert (report.known, report.inserted) == (stored, 3000 - stored)
        assert sum((await counts(ws)).values()) == 3000


async def test_a_million_rows_need_no_memory(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shown at a smaller size: the reader is never more than one batch ahead of what is stored."""
    monkeypatch.setattr(intake, "BATCH", 10)
    handed = 0
    stored_when_read: list[int] = []
    read_records = intake.read_records

    def counting(path: Path) -> Any:
        nonlocal handed
        for record in read_records(path):
            handed += 1
            yield record

    monkeypatch.setattr(intake, "read_records", counting)
    file = write(tmp_path / "a.jsonl", [{"instruction": f"Question {n}?", "output": "a"} for n in range(95)])
    await import_samples(ws, file, on_progress=lambda r: stored_when_read.append(handed - r.read))
    assert len(stored_when_read) == 10
    assert set(stored_when_read) == {0}
