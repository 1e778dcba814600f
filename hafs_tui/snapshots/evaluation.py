"""What the Evaluation screen shows: evaluations in numbers, comparisons, and the items of the selected one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from backend.evaluation.comparing import list_comparisons, load_comparison
from backend.evaluation.comparison import EvaluationSummary
from backend.evaluation.documents import list_evaluations, summary_of
from backend.evaluation.report import comparison_markdown
from backend.settings import Workspace
from backend.store import datasets, evaluations
from backend.store.datasets import DatasetVersion
from backend.store.evaluations import ComparisonRow, Evaluation, OutcomeRow


@dataclass(frozen=True, slots=True)
class Summarised:
    """An evaluation's row and its numbers."""

    row: Evaluation
    summary: EvaluationSummary


@dataclass(frozen=True, slots=True)
class EvaluationSnapshot:
    """`items` belong to the evaluation `selected` (an id)."""

    evaluations: tuple[Summarised, ...]
    comparisons: tuple[ComparisonRow, ...]
    selected: int | None
    items: tuple[OutcomeRow, ...]
    datasets: tuple[DatasetVersion, ...]

    def model_of(self, evaluation_id: int) -> str:
        """The model of an evaluation, `?` where its row is gone."""
        return next((one.row.model for one in self.evaluations if one.row.id == evaluation_id), "?")


class EvaluationReader:
    """Works out numbers anew only for an evaluation whose rows have changed."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Summarised] = {}
        self._items: tuple[tuple[int, int] | None, tuple[OutcomeRow, ...]] = (None, ())

    async def read(self, ws: Workspace, selected: int | None) -> EvaluationSnapshot:
        """Everything that the screen shows; `selected` is an id, None the newest."""
        known: dict[tuple[int, int], Summarised] = {}
        for row in await list_evaluations(ws):
            key = (row.id, row.change)
            known[key] = self._known.get(key) or Summarised(row, (await summary_of(ws, row))[0])
        self._known = known
        found = tuple(known.values())
        chosen = next((one.row for one in found if one.row.id == selected), found[0].row if found else None)
        return EvaluationSnapshot(
            evaluations=found,
            comparisons=tuple(await list_comparisons(ws)),
            selected=chosen.id if chosen is not None else None,
            items=await self._items_of(ws, chosen) if chosen is not None else (),
            datasets=tuple(await datasets.every(ws.db)),
        )

    async def _items_of(self, ws: Workspace, row: Evaluation) -> tuple[OutcomeRow, ...]:
        key = (row.id, row.change)
        if self._items[0] != key:
            self._items = (key, tuple(await evaluations.outcomes(ws.db, row.id)))
        return self._items[1]


async def report_text(ws: Workspace, row: ComparisonRow) -> str:
    """The report of a comparison: its file, or the same made again from the rows where the file is gone."""
    path = Path(row.report) if row.report else None
    if path is not None and await asyncio.to_thread(path.is_file):
        return await asyncio.to_thread(path.read_text, "utf-8", "replace")
    return comparison_markdown(await load_comparison(ws, row))
