"""What an evaluation wants to know, and its outcomes as rows: each item scored and stored once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from backend.evaluation.benchmarks import Benchmark, BenchmarkItem, Outcome, score_of
from backend.evaluation.scoring import score_answer
from backend.execution.pool import Execution
from backend.registry.references import ResolvedModel
from backend.settings import Workspace
from backend.store import evaluations as rows
from backend.store.evaluations import OutcomeRow

OnProgress = Callable[[int, int], None]
"""Called with (items answered, items in all)."""


class EvaluationFailed(Exception):
    """An evaluation that could not be started or finished; what was answered is kept, and running it again
    goes on from there."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an evaluation is to find out. Answers are greedy and at most `max_new_tokens` long."""

    model: ResolvedModel
    benchmarks: tuple[Benchmark, ...]
    heldout: Path | None
    host: str
    max_new_tokens: int
    batch_size: int


@dataclass(frozen=True, slots=True)
class Given:
    """One answer of the model. `note` is what the scorer's detail begins with, where there is something.
    `not_run` where the model could not be asked: neither a pass nor a failure."""

    benchmark: str
    id: str
    answer: str
    note: str = ""
    not_run: bool = False


class Recorder:
    """Knows which items have no outcome yet, and stores the outcomes of those that come."""

    def __init__(
        self,
        ws: Workspace,
        evaluation_id: int,
        wanted: Wanted,
        execution: Execution,
        on_progress: OnProgress | None,
    ) -> None:
        self.evaluation_id = evaluation_id
        self._ws = ws
        self._execution = execution
        self._on_progress = on_progress
        self._items = {(one.name, item.id): item for one in wanted.benchmarks for item in one.items}
        self._missing = dict(self._items)

    async def load(self) -> None:
        """Pass over the items that were answered before; an item whose question changed is asked again."""
        for row in await rows.outcomes(self._ws.db, self.evaluation_id):
            item = self._items.get((row.benchmark, row.item_id))
            if item is not None and item.prompt == row.prompt:
                self._missing.pop((row.benchmark, row.item_id), None)
        self._tell()

    @property
    def missing(self) -> list[tuple[str, BenchmarkItem]]:
        """[(benchmark, item)] without an outcome, in the files' order."""
        return [(benchmark, item) for (benchmark, _), item in self._missing.items()]

    async def record(self, answers: Sequence[Given]) -> None:
        """Score answers and store their outcomes in one transaction; what was stored before is passed over."""
        new = [given for given in answers if (given.benchmark, given.id) in self._missing]
        if not new:
            return
        async with asyncio.TaskGroup() as group:
            scored = [
                group.create_task(_outcome(self._execution, self._missing[given.benchmark, given.id], given))
                for given in new
            ]
        outcomes = [task.result() for task in scored]
        async with self._ws.db.transaction() as transaction:
            await rows.put_outcomes(transaction, self.evaluation_id, outcomes)
        for given in new:
            del self._missing[given.benchmark, given.id]
        self._tell()

    def _tell(self) -> None:
        if self._on_progress is not None:
            self._on_progress(len(self._items) - len(self._missing), len(self._items))


def keys_of(evaluation_id: int) -> tuple[str, str]:
    """The content keys of an evaluation's requests lie from the first to before the second."""
    return f"evaluation:{evaluation_id}:", f"evaluation:{evaluation_id};"


async def _outcome(execution: Execution, item: BenchmarkItem, given: Given) -> OutcomeRow:
    outcome: Outcome = "not_run"
    detail = ""
    if not given.not_run:
        outcome, detail = await score_answer(execution, item, given.answer)
    return OutcomeRow(
        benchmark=given.benchmark,
        item_id=item.id,
        family=item.family,
        category=item.category,
        outcome=outcome,
        score=score_of(outcome),
        answer=given.answer,
        reference=item.references[0] if item.references else "",
        prompt=item.prompt,
        detail="; ".join(part for part in (given.note, detail) if part),
    )
