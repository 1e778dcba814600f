"""Rows of runs (training jobs) and their checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from backend.store.clock import now
from backend.store.connection import Json, Queries, Transaction
from backend.store.jobs import JobState

RunKind = Literal["sft", "dpo"]

_SELECT = (
    "SELECT runs.*, coalesce(jobs.state, 'queued') AS state FROM runs LEFT JOIN jobs ON jobs.id = runs.job_id"
)


@dataclass(frozen=True, slots=True)
class Run:
    """`state` is its job's; `output_dir` is a folder of its host; losses are nats a token."""

    id: int
    name: str
    kind: RunKind
    state: JobState
    job_id: str | None
    host: str
    base_model: str
    parent: str | None
    dataset_id: int | None
    recipe: Json[dict[str, Any]]
    output_dir: str
    step: int | None
    total_steps: int | None
    loss: float | None
    eval_loss: float | None
    created_at: float
    change: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    step: int
    path: str
    at: float


async def insert(
    transaction: Transaction,
    *,
    name: str,
    kind: RunKind,
    job_id: str | None,
    host: str,
    base_model: str,
    parent: str | None,
    dataset_id: int | None,
    recipe: str,
    output_dir: str,
) -> int:
    return await transaction.insert(
        "INSERT INTO runs (name, kind, job_id, host, base_model, parent, dataset_id, recipe, output_dir, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (name, kind, job_id, host, base_model, parent, dataset_id, recipe, output_dir, now()),
    )


async def set_job(transaction: Transaction, run_id: int, job_id: str) -> None:
    """Point the run at the job that now works for it (a resume is a new job of the same run)."""
    await transaction.execute("UPDATE runs SET job_id = ? WHERE id = ?", (job_id, run_id))


async def progress(
    transaction: Transaction,
    job_id: str,
    step: int,
    total_steps: int | None,
    loss: float | None,
    eval_loss: float | None,
) -> None:
    await transaction.execute(
        "UPDATE runs SET step = ?, total_steps = coalesce(?, total_steps), loss = coalesce(?, loss), "
        "eval_loss = coalesce(?, eval_loss) WHERE job_id = ?",
        (step, total_steps, loss, eval_loss, job_id),
    )


async def put_checkpoint(transaction: Transaction, job_id: str, step: int, path: str, at: float) -> None:
    await transaction.execute(
        "INSERT OR REPLACE INTO checkpoints (run_id, step, path, at) SELECT id, ?, ?, ? FROM runs WHERE job_id = ?",
        (step, path, at, job_id),
    )


async def by_name(queries: Queries, name: str) -> Run | None:
    return await queries.row(Run, f"{_SELECT} WHERE runs.name = ?", (name,))


async def every(queries: Queries) -> list[Run]:
    """Newest first."""
    return await queries.rows(Run, f"{_SELECT} ORDER BY runs.id DESC")


async def checkpoints(queries: Queries, run_id: int) -> list[Checkpoint]:
    return await queries.rows(
        Checkpoint, "SELECT step, path, at FROM checkpoints WHERE run_id = ? ORDER BY step", (run_id,)
    )
