"""Judges a benchmark file's own answers: a benchmark whose references fail measures nothing.

`reference` and `alternates` must be correct; `near_miss` and `broken` must not be, and of code the first must
assemble and the second must not. What is to be executed is `not_run` where asar or the core is missing, and then
neither holds nor fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from backend.datasets.rows import BadRow
from backend.evaluation.benchmarks import BenchmarkItem, Outcome, read_benchmark
from backend.evaluation.scoring import score_answer
from backend.execution.pool import Execution, open_execution
from backend.execution.tools import Tools

AnswerKind = Literal["reference", "near_miss", "broken"]


@dataclass(frozen=True, slots=True)
class Case:
    """One own answer of an item: `outcome` as for a model's, and whether that is what the file says of it
    (None: not run)."""

    id: str
    line: int
    kind: AnswerKind
    answer: str
    outcome: Outcome
    detail: str
    holds: bool | None


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a file says of itself. `unchecked` are items that were not run or have no reference answer;
    `problems` are lines that are no items."""

    benchmark: str
    path: Path
    items: int
    cases: tuple[Case, ...]
    unchecked: tuple[str, ...]
    problems: tuple[BadRow, ...]

    @property
    def failed(self) -> tuple[Case, ...]:
        return tuple(case for case in self.cases if case.holds is False)

    @property
    def holds(self) -> bool:
        """Whether every line is an item and every answer that was judged came out as the file says."""
        return not self.failed and not self.problems


async def check_benchmark(path: Path, tools: Tools) -> CheckReport:
    """Judge every own answer of a file's items. Raises OSError, and BenchmarkError where no line is an item."""
    benchmark = await asyncio.to_thread(read_benchmark, path)
    async with open_execution(tools) as execution, asyncio.TaskGroup() as group:
        judged = [
            group.create_task(_case(execution, item, kind, answer))
            for item in benchmark.items
            for kind, answer in _own_answers(item)
        ]
    cases = tuple(task.result() for task in judged)
    checked = {case.id for case in cases if case.kind == "reference" and case.holds is not None}
    unchecked = tuple(item.id for item in benchmark.items if item.id not in checked)
    return CheckReport(benchmark.name, path, len(benchmark.items), cases, unchecked, benchmark.problems)


def _own_answers(item: BenchmarkItem) -> Iterator[tuple[AnswerKind, str]]:
    answers: Sequence[tuple[AnswerKind, tuple[str, ...]]] = (
        ("reference", item.references),
        ("near_miss", item.near_miss),
        ("broken", item.broken),
    )
    for kind, texts in answers:
        for answer in texts:
            yield kind, answer


async def _case(execution: Execution, item: BenchmarkItem, kind: AnswerKind, answer: str) -> Case:
    """A near-miss of what is executed must assemble, or it shows nothing; a broken answer must not."""
    outcome, detail = await score_answer(execution, item, answer)
    right = outcome == "correct"
    if item.mode in ("routine", "patch"):
        failed_early = outcome in ("no_assembly", "refused", "no_answer")
        holds = {"reference": right, "near_miss": not right and not failed_early, "broken": failed_early}[
            kind
        ]
    else:
        holds = right == (kind == "reference")
    return Case(item.id, item.line, kind, answer, outcome, detail, None if outcome == "not_run" else holds)
