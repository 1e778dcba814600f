"""Rows of evaluations, the outcome of each benchmark item, and comparisons."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from backend.store.clock import now
from backend.store.connection import Json, Queries, Transaction

EvaluationState = Literal["running", "done", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`perplexity` is `{word_rolling, byte_rolling, word_stride, reason}`; `benchmarks` are names."""

    id: int
    model: str
    benchmarks: Json[list[str]]
    state: EvaluationState
    job_id: str | None
    perplexity: Json[dict[str, Any]]
    notes: Json[list[str]]
    output: str | None
    error: str | None
    created_at: float
    ended_at: float | None
    change: int


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    benchmark: str
    item_id: str
    family: str
    category: str
    outcome: str
    score: float | None
    answer: str
    reference: str
    prompt: str
    detail: str


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """`difference` is fine-tuned minus baseline, -1 to 1, with its 95 % interval `low` to `high`."""

    id: int
    baseline: int
    finetuned: int
    verdict: Literal["better", "worse", "cannot_tell"]
    items_needed: int | None
    difference: float
    low: float
    high: float
    p_value: float
    report: str | None
    created_at: float
    change: int


async def insert(transaction: Transaction, model: str, benchmarks: str, job_id: str | None) -> int:
    return await transaction.insert(
        "INSERT INTO evaluations (model, benchmarks, state, job_id, created_at) VALUES (?, ?, 'running', ?, ?)",
        (model, benchmarks, job_id, now()),
    )


async def put_outcomes(transaction: Transaction, evaluation_id: int, outcomes: Iterable[OutcomeRow]) -> None:
    await transaction.execute_many(
        "INSERT OR REPLACE INTO outcomes (evaluation_id, benchmark, item_id, family, category, outcome, score, answer, "
        "reference, prompt, detail) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(evaluation_id, o.benchmark, o.item_id, o.family, o.category, o.outcome, o.score, o.answer, o.reference,
          o.prompt, o.detail) for o in outcomes],
    )  # fmt: skip
    await transaction.execute("UPDATE evaluations SET state = state WHERE id = ?", (evaluation_id,))


async def finish(
    transaction: Transaction,
    evaluation_id: int,
    state: EvaluationState,
    *,
    perplexity: str | None = None,
    notes: str | None = None,
    output: str | None = None,
    error: str | None = None,
) -> None:
    await transaction.execute(
        "UPDATE evaluations SET state = ?, perplexity = coalesce(?, perplexity), notes = coalesce(?, notes), "
        "output = coalesce(?, output), error = ?, ended_at = ? WHERE id = ?",
        (state, perplexity, notes, output, error, now(), evaluation_id),
    )


async def by_id(queries: Queries, evaluation_id: int) -> Evaluation | None:
    return await queries.row(Evaluation, "SELECT * FROM evaluations WHERE id = ?", (evaluation_id,))


async def newest_of(queries: Queries, model: str) -> Evaluation | None:
    """The newest finished evaluation of a model."""
    return await queries.row(
        Evaluation,
        "SELECT * FROM evaluations WHERE model = ? AND state = 'done' ORDER BY id DESC LIMIT 1",
        (model,),
    )


async def every(queries: Queries) -> list[Evaluation]:
    """Newest first."""
    return await queries.rows(Evaluation, "SELECT * FROM evaluations ORDER BY id DESC")


async def outcomes(queries: Queries, evaluation_id: int) -> list[OutcomeRow]:
    return await queries.rows(
        OutcomeRow,
        "SELECT * FROM outcomes WHERE evaluation_id = ? ORDER BY benchmark, item_id",
        (evaluation_id,),
    )


async def insert_comparison(
    transaction: Transaction,
    *,
    baseline: int,
    finetuned: int,
    verdict: str,
    items_needed: int | None,
    difference: float,
    low: float,
    high: float,
    p_value: float,
    report: str | None,
) -> int:
    return await transaction.insert(
        "INSERT INTO comparisons (baseline, finetuned, verdict, items_needed, difference, low, high, p_value, report, "
        "created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (baseline, finetuned, verdict, items_needed, difference, low, high, p_value, report, now()),
    )


async def comparisons(queries: Queries) -> list[ComparisonRow]:
    """Newest first."""
    return await queries.rows(ComparisonRow, "SELECT * FROM comparisons ORDER BY id DESC")
