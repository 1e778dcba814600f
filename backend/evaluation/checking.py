"""Judges a benchmark file's own answers: a benchmark whose references fail measures nothing.

`reference` and `alternates` must be correct; `near_miss` and `broken` must not be. What is to be executed is
`not_run` where nothing executes it, and then neither holds nor fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from backend.datasets.rows import BadRow
from backend.evaluation.benchmarks import BenchmarkItem, Outcome, read_benchmark, score_text

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


def check_benchmark(path: Path) -> CheckReport:
    """Judge every own answer of a file's items. Raises OSError, and BenchmarkError where no line is an item."""
    benchmark = read_benchmark(path)
    cases = tuple(case for item in benchmark.items for case in _cases(item))
    checked = {case.id for case in cases if case.kind == "reference" and case.holds is not None}
    unchecked = tuple(item.id for item in benchmark.items if item.id not in checked)
    return CheckReport(benchmark.name, path, len(benchmark.items), cases, unchecked, benchmark.problems)


def _cases(item: BenchmarkItem) -> Iterator[Case]:
    answers: Sequence[tuple[AnswerKind, tuple[str, ...]]] = (
        ("reference", item.references),
        ("near_miss", item.near_miss),
        ("broken", item.broken),
    )
    for kind, texts in answers:
        for answer in texts:
            outcome, detail = score_text(item, answer)
            wanted = kind == "reference"
            holds = None if outcome == "not_run" else (outcome == "correct") == wanted
            yield Case(item.id, item.line, kind, answer, outcome, detail, holds)
