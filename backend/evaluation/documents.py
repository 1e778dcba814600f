"""Evaluations as rows tell of them: their numbers, their items, and the command line's JSON."""

from __future__ import annotations

import asyncio
from typing import Any

from backend.evaluation.benchmarks import Outcome
from backend.evaluation.comparison import EvaluationSummary, ItemOutcome, evaluation_record, summarise
from backend.evaluation.metrics import Perplexity
from backend.evaluation.recording import EvaluationFailed, keys_of
from backend.settings import Workspace
from backend.store import evaluations as rows
from backend.store import jobs
from backend.store.evaluations import Evaluation, OutcomeRow


async def evaluation_document(ws: Workspace, evaluation_id: int) -> dict[str, Any]:
    """An evaluation as the command line's JSON: its numbers, and `items` with each outcome and answer."""
    summary, items = await summary_of(ws, await evaluation_row(ws, evaluation_id))
    return {
        **evaluation_record(summary),
        "items": [
            {"benchmark": item.benchmark, "id": item.id, "outcome": item.outcome, "score": item.score,
             "detail": item.detail, "answer": item.answer}
            for item in items
        ],
    }  # fmt: skip


async def summary_of(ws: Workspace, evaluation: Evaluation) -> tuple[EvaluationSummary, list[ItemOutcome]]:
    """An evaluation in numbers, and its items."""
    items = [_item(row) for row in await rows.outcomes(ws.db, evaluation.id)]
    conditions = await conditions_of(ws, evaluation)
    summary = await asyncio.to_thread(
        summarise,
        evaluation.model,
        items,
        perplexity=Perplexity.from_record(evaluation.perplexity),
        conditions=conditions,
        notes=evaluation.notes,
        id=evaluation.id,
    )
    return summary, items


async def conditions_of(ws: Workspace, evaluation: Evaluation) -> dict[str, str]:
    """What two evaluations must share to be compared fairly, by name, as far as the rows tell."""
    job = await jobs.by_id(ws.db, evaluation.job_id) if evaluation.job_id else None
    if job is not None:
        limit = str(job.spec["parameters"]["max_new_tokens"])
        return {"engine": "transformers", "max_tokens": limit, "temperature": "0"}
    asked = await ws.db.fetch_one(
        "SELECT provider, json_extract(prompt, '$.max_tokens') FROM requests "
        "WHERE purpose = 'evaluate' AND content_key >= ? AND content_key < ? LIMIT 1",
        keys_of(evaluation.id),
    )
    if asked is None:
        return {}
    return {"engine": str(asked[0]), "max_tokens": str(asked[1]), "temperature": "0"}


async def list_evaluations(ws: Workspace) -> list[Evaluation]:
    """Newest first."""
    return await rows.every(ws.db)


async def show_evaluation(ws: Workspace, evaluation_id: int) -> tuple[Evaluation, list[OutcomeRow]]:
    """Raises EvaluationFailed for an unknown id."""
    return await evaluation_row(ws, evaluation_id), await rows.outcomes(ws.db, evaluation_id)


async def evaluation_row(ws: Workspace, evaluation_id: int) -> Evaluation:
    """Raises EvaluationFailed for an unknown id."""
    row = await rows.by_id(ws.db, evaluation_id)
    if row is None:
        raise EvaluationFailed(f"no evaluation {evaluation_id}; hafs-tui eval list shows those there are")
    return row


def _item(row: OutcomeRow) -> ItemOutcome:
    outcome: Outcome = row.outcome  # type: ignore[assignment]
    return ItemOutcome(
        benchmark=row.benchmark,
        id=row.item_id,
        family=row.family,
        category=row.category,
        outcome=outcome,
        score=row.score,
        answer=row.answer,
        detail=row.detail,
        prompt=row.prompt,
        reference=row.reference,
    )
