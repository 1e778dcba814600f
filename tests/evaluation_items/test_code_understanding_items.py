"""The questions of code_understanding: what was worked out by hand is what the core does, and nothing else passes."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from backend.evaluation.benchmarks import BenchmarkItem, read_benchmark
from backend.evaluation.scoring import score_answer
from backend.execution.assembling import assemble_source
from backend.execution.expectations import Expect
from backend.execution.pool import Execution
from backend.execution.running import run_cases
from tests.fixtures import make_code_understanding_benchmark as maker
from tests.fixtures.benchmarks.code_understanding.making import CANARY, lines_of, place_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
BENCHMARK = read_benchmark(maker.FILE)


async def test_the_file_is_what_its_source_makes_and_is_marked() -> None:
    assert maker.FILE.read_text("utf-8") == maker.lines(), "run its maker in tests/fixtures"
    assert BENCHMARK.problems == ()
    assert len(BENCHMARK.items) >= 40
    assert len({item.family for item in BENCHMARK.items}) >= 8
    assert len({item.prompt for item in BENCHMARK.items}) == len(BENCHMARK.items)
    for item in BENCHMARK.items:
        assert item.canary == CANARY
        assert CANARY not in item.prompt
        assert len(item.references) >= 2
        assert item.near_miss
        assert item.broken


async def test_the_code_of_a_question_is_the_code_that_is_run() -> None:
    for question, item in zip(maker.ITEMS, BENCHMARK.items, strict=True):
        shown = item.input.split("```asm\n")[1].removesuffix("\n```")
        run = (item.setup or "").split("Main:\n")[1].replace("    jml Done\n", "").strip("\n")
        assert shown == run
        assert lines_of(question.code) in shown


async def test_every_questions_own_answers_come_out_as_it_says(execution: Execution) -> None:
    async def failures(item: BenchmarkItem) -> list[str]:
        """One answer after the other: the first one makes the item's ROM for all of them."""
        wanted = [(answer, {"correct"}) for answer in item.references]
        wanted += [(answer, {"wrong"}) for answer in item.near_miss]
        wanted += [(answer, {"wrong", "no_answer"}) for answer in item.broken]
        failed = []
        for answer, outcomes in wanted:
            outcome, detail = await score_answer(execution, item, answer)
            if outcome not in outcomes:
                failed.append(f"{item.id}: {answer!r} is {outcome}: {detail}")
        return failed

    judged = await asyncio.gather(*(failures(item) for item in BENCHMARK.items))
    assert [failure for failed in judged for failure in failed] == []


async def test_the_truth_is_what_the_core_does_whatever_else_stands_in_ram(execution: Execution) -> None:
    """With other noise around what a question gives, the same comes out; this holds for answers in words too."""

    async def left(item: BenchmarkItem) -> list[bytes]:
        assert item.wanted is not None
        cases = tuple(replace(item.wanted.cases[0], seed=seed) for seed in (2, 3, 4))
        made = await assemble_source(execution, item.setup or "", item.files)
        ran = await run_cases(execution, made.rom, Expect(cases=cases, done=item.wanted.done))
        assert ran.outcome == "correct", f"{item.id}: {ran.detail}"
        return list(ran.wrams)

    every = await asyncio.gather(*(left(item) for item in BENCHMARK.items))
    for question, wrams in zip(maker.ITEMS, every, strict=True):
        if isinstance(question.answer, int):
            (address, length), mask, truth = place_of(question.where), 0xFFFF, question.answer
        else:
            assert question.seen is not None, f"{question.name}: nothing is seen of its answer"
            (address, length), mask, truth = place_of(question.seen[0]), *question.seen[1:]
        for wram in wrams:
            offset = address - 0x7E0000
            found = int.from_bytes(wram[offset : offset + length], "little") & mask
            assert found == truth, f"{question.name}: {found:04X}"
