"""A benchmark file that is checked without tools, and an item that asks nothing. What the shipped items say of
themselves is in tests/evaluation_items."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.evaluation.benchmarks import read_benchmark
from backend.evaluation.checking import check_benchmark
from backend.evaluation.scoring import score_answer
from backend.execution.pool import Execution
from backend.execution.tools import Found, Tools
from tests.fixtures import make_asm_benchmark

pytestmark = pytest.mark.asyncio(loop_scope="module")
FILE = make_asm_benchmark.FILE
ITEMS = read_benchmark(FILE).items


async def test_without_tools_nothing_holds_and_nothing_fails() -> None:
    report = await check_benchmark(FILE, Tools(Found(None, "no asar here"), Found(None, "no core here")))
    assert {(case.outcome, case.holds) for case in report.cases} == {("not_run", None)}
    assert len(report.unchecked) == len(ITEMS)


async def test_an_item_that_asks_nothing_is_not_run(execution: Execution, tmp_path: Path) -> None:
    file = tmp_path / "own_benchmark.jsonl"
    file.write_text('{"id": "x", "instruction": "x", "mode": "routine", "setup": "lorom\\n;@ANSWER@"}\n')
    (item,) = read_benchmark(file).items
    outcome, detail = await score_answer(execution, item, "org $008000\n nop")
    assert outcome == "not_run"
    assert "asks nothing" in detail
