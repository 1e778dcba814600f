"""Compares two evaluations of the workspace and keeps the verdict, with its report in Markdown."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from backend.evaluation.comparison import Comparison, compare, comparison_record
from backend.evaluation.documents import evaluation_row, summary_of
from backend.evaluation.recording import EvaluationFailed
from backend.evaluation.report import comparison_markdown
from backend.registry.references import ModelReferenceError, resolve
from backend.settings import Workspace
from backend.settings.load import write_text
from backend.store import evaluations as rows
from backend.store.evaluations import ComparisonRow, Evaluation


async def compare_models(
    ws: Workspace, baseline: str, finetuned: str, report: Path | None = None
) -> tuple[Comparison, ComparisonRow]:
    """Compare the newest finished evaluations of two models, item by item, and keep the verdict.

    Each is a model's reference, an evaluation's id, or the JSON file that an evaluation wrote. The report goes
    to `report`, or into the workspace's evaluations. Raises EvaluationFailed.
    """
    before, after = await _pair_of(ws, baseline, finetuned)
    comparison = await _compared(ws, before, after)
    overall = comparison.overall
    target = report or ws.evaluations / "comparisons" / f"{before.id}-{after.id}.md"
    await asyncio.to_thread(write_text, target, comparison_markdown(comparison))
    async with ws.db.transaction() as transaction:
        number = await rows.insert_comparison(
            transaction,
            baseline=before.id,
            finetuned=after.id,
            verdict=overall.verdict,
            items_needed=overall.items_needed,
            difference=overall.difference,
            low=overall.interval.low,
            high=overall.interval.high,
            p_value=overall.p_value,
            report=str(target.absolute()),
        )
    return comparison, next(row for row in await list_comparisons(ws) if row.id == number)


def comparison_document(comparison: Comparison, row: ComparisonRow) -> dict[str, Any]:
    """A comparison as the command line's JSON, with its row's id and the path of its report."""
    return {"id": row.id, **comparison_record(comparison), "report": row.report}


async def list_comparisons(ws: Workspace) -> list[ComparisonRow]:
    """Newest first."""
    return await rows.comparisons(ws.db)


async def load_comparison(ws: Workspace, row: ComparisonRow) -> Comparison:
    """A kept comparison with its items, made again from the rows. Raises EvaluationFailed."""
    return await _compared(
        ws, await evaluation_row(ws, row.baseline), await evaluation_row(ws, row.finetuned)
    )


async def find_evaluations(ws: Workspace, wanted: str) -> list[Evaluation]:
    """The one of an id or of the JSON file that it wrote, or the finished ones of a model, newest first.

    Raises EvaluationFailed where there is none.
    """
    if wanted.isdigit():
        return [await _finished(ws, int(wanted))]
    if wanted.endswith(".json"):
        return [await _finished(ws, await asyncio.to_thread(_id_in, wanted))]
    names = {wanted}
    try:
        names.add((await resolve(ws, wanted)).reference)
    except ModelReferenceError as error:
        problem = f"{wanted} is neither an evaluation nor a model: {error}"
    else:
        problem = f"{wanted} has no finished evaluation; make one: hafs-tui eval run --model {wanted}"
    found = [row for row in await rows.every(ws.db) if row.model in names and row.state == "done"]
    if not found:
        raise EvaluationFailed(problem)
    return found


async def _pair_of(ws: Workspace, baseline: str, finetuned: str) -> tuple[Evaluation, Evaluation]:
    """The newest evaluations of both that share a benchmark."""
    older = await find_evaluations(ws, baseline)
    for after in await find_evaluations(ws, finetuned):
        for before in older:
            if set(before.benchmarks) & set(after.benchmarks) and before.id != after.id:
                return before, after
    raise EvaluationFailed(
        f"{baseline} and {finetuned} have no benchmark in common; evaluate both on the same"
    )


async def _finished(ws: Workspace, evaluation_id: int) -> Evaluation:
    evaluation = await evaluation_row(ws, evaluation_id)
    if evaluation.state != "done":
        raise EvaluationFailed(
            f"evaluation {evaluation_id} is {evaluation.state}, so it cannot be compared yet"
        )
    return evaluation


def _id_in(path: str) -> int:
    try:
        return int(json.loads(Path(path).expanduser().read_text("utf-8"))["id"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationFailed(f"{path}: not the JSON of an evaluation: {error}") from error


async def _compared(ws: Workspace, before: Evaluation, after: Evaluation) -> Comparison:
    first, first_items = await summary_of(ws, before)
    second, second_items = await summary_of(ws, after)
    return await asyncio.to_thread(compare, first, second, first_items, second_items)
