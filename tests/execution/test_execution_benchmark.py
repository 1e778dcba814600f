"""The shipped asm benchmark judges its own answers as it should, and notices a missing instruction."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.evaluation.benchmarks import BenchmarkItem, read_benchmark
from backend.evaluation.checking import check_benchmark
from backend.evaluation.scoring import score_answer, task_of
from backend.execution.expectations import can_fail
from backend.execution.items import judge_answer
from backend.execution.pool import Execution
from backend.execution.tools import Found, Tools
from tests.fixtures import make_asm_benchmark

pytestmark = pytest.mark.asyncio(loop_scope="module")
FILE = make_asm_benchmark.FILE
ITEMS = read_benchmark(FILE).items

# (item, answer, instruction): what may be missing without harm, and why.
REDUNDANT = {
    ("asm-mul8", 1, "lda $02"): "the loop then ends when the other factor is shifted out",
    ("asm-popcount", 1, "dey"): "the loop then ends when all bits are shifted out",
    ("asm-abs16", 1, "sec"): "the comparison before it has set the carry",
    ("asm-max8", 0, "sec"): "one less changes no sign that matters: a tie takes the other, equal byte",
}


async def test_every_own_answer_comes_out_as_the_file_says(tools: Tools) -> None:
    report = await check_benchmark(FILE, tools)
    assert [case for case in report.cases if case.holds is not True] == []
    assert (report.problems, report.unchecked) == ((), ())
    assert len(report.cases) == 4 * len(ITEMS) == 32
    assert {case.outcome for case in report.cases if case.kind == "near_miss"} <= {"wrong", "no_finish"}


async def test_without_tools_nothing_holds_and_nothing_fails() -> None:
    report = await check_benchmark(FILE, Tools(Found(None, "no asar here"), Found(None, "no core here")))
    assert {(case.outcome, case.holds) for case in report.cases} == {("not_run", None)}
    assert len(report.unchecked) == len(ITEMS)


async def test_the_file_is_what_its_maker_writes_and_could_fail_every_answer() -> None:
    assert FILE.read_text("utf-8") == make_asm_benchmark.lines()
    for item in ITEMS:
        assert item.wanted is not None
        assert can_fail(item.wanted, "routine")
        assert len({case.seed for case in item.wanted.cases}) >= 4
        assert item.canary


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.id)
async def test_a_reference_without_one_instruction_is_wrong(
    execution: Execution, item: BenchmarkItem
) -> None:
    task = task_of(item)
    assert task is not None
    for number, answer in enumerate(item.references):
        lines = answer.splitlines()
        for place, line in enumerate(lines):
            if not line.startswith("    "):
                continue
            judged = await judge_answer(execution, task, "\n".join(lines[:place] + lines[place + 1 :]))
            assert (judged.outcome == "correct") == ((item.id, number, line.strip()) in REDUNDANT), line


async def test_an_item_that_asks_nothing_is_not_run(execution: Execution, tmp_path: Path) -> None:
    file = tmp_path / "own_benchmark.jsonl"
    file.write_text('{"id": "x", "instruction": "x", "mode": "routine", "setup": "lorom\\n;@ANSWER@"}\n')
    (item,) = read_benchmark(file).items
    outcome, detail = await score_answer(execution, item, "org $008000\n nop")
    assert outcome == "not_run"
    assert "asks nothing" in detail
