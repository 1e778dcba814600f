"""The shipped asm items: right answers pass, near-misses assemble and fail, and a missing instruction is noticed."""

from __future__ import annotations

import asyncio

import pytest

from backend.evaluation.benchmarks import BenchmarkItem, read_benchmark
from backend.evaluation.scoring import score_answer
from backend.execution.expectations import can_fail
from backend.execution.pool import Execution
from tests.evaluation_items import mutations
from tests.fixtures import make_asm_benchmark

pytestmark = pytest.mark.asyncio(loop_scope="module")
BENCHMARK = read_benchmark(make_asm_benchmark.FILE)
SAMPLE = 20


async def test_the_file_is_what_its_maker_writes_and_could_fail_every_answer() -> None:
    assert make_asm_benchmark.FILE.read_text("utf-8") == make_asm_benchmark.lines()
    assert BENCHMARK.problems == ()
    assert len(BENCHMARK.items) >= 60
    assert len({item.label for item in BENCHMARK.items}) == len(BENCHMARK.items)
    for item in BENCHMARK.items:
        assert item.wanted is not None
        assert can_fail(item.wanted, "routine")
        assert item.wanted.allow_write is not None
        inputs = [case.wram for case in item.wanted.cases]
        assert len(set(inputs)) == len(inputs) >= 3, item.id
        assert len(item.references) >= 2
        assert item.near_miss
        assert item.broken
        assert item.canary


@pytest.mark.parametrize("item", BENCHMARK.items, ids=lambda item: item.id)
async def test_an_items_own_answers_come_out_as_it_says(execution: Execution, item: BenchmarkItem) -> None:
    answers = [*item.references, *item.near_miss, *item.broken]
    judged = await asyncio.gather(*(score_answer(execution, item, answer) for answer in answers))
    right = len(item.references)
    wrong = right + len(item.near_miss)
    assert [said for said in judged[:right] if said[0] != "correct"] == []
    assert {outcome for outcome, _ in judged[right:wrong]} <= {"wrong", "no_finish"}
    assert {outcome for outcome, _ in judged[wrong:]} == {"no_assembly"}


async def test_a_sample_of_answers_without_one_instruction_is_wrong(execution: Execution) -> None:
    """All of them: `python -m tests.evaluation_items.mutations`."""
    mutants = [mutant for item in BENCHMARK.items for mutant in mutations.mutants_of(item)]
    found = await mutations.survivors(execution, mutants[::SAMPLE])
    reasons = mutations.explained()
    assert [mutant.key for mutant in found if mutant.key not in reasons] == []


async def test_every_explained_survivor_is_still_an_instruction_of_its_item() -> None:
    there = {mutant.key for item in BENCHMARK.items for mutant in mutations.mutants_of(item)}
    mine = {key: reason for key, reason in mutations.explained().items() if key[0].startswith("asm-")}
    assert set(mine) <= there
    assert all(len(reason) > 10 for reason in mine.values())
