"""Rows of jobs, their events and metrics: a mirror of what each host holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from backend.store.clock import now
from backend.store.connection import Json, Queries, Transaction

JobState = Literal["queued", "starting", "running", "stopping", "done", "failed", "cancelled", "lost"]
ENDED: tuple[JobState, ...] = ("done", "failed", "cancelled", "lost")


@dataclass(frozen=True, slots=True)
class Job:
    """`events_offset` is the byte of the host's events.jsonl up to which the rows here know it. `position` is
    its place in the host's queue, 1 for the one that starts next; None where it does not wait."""

    id: str
    host: str
    kind: str
    argv: Json[list[str]]
    spec: Json[dict[str, Any]]
    state: JobState
    exit_code: int | None
    error: str | None
    log_path: str | None
    events_offset: int
    created_at: float
    started_at: float | None
    ended_at: float | None
    seen_at: float | None
    change: int
    position: int | None

    @property
    def ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class Event:
    """One event record of a job, `payload` as the worker wrote it."""

    seq: int
    kind: str
    at: float
    payload: Json[dict[str, Any]]


async def insert(transaction: Transaction, job_id: str, host: str, kind: str, argv: str, spec: str) -> None:
    await transaction.execute(
        "INSERT INTO jobs (id, host, kind, argv, spec, state, created_at) VALUES (?, ?, ?, ?, ?, 'queued', ?)",
        (job_id, host, kind, argv, spec, now()),
    )


async def update(
    transaction: Transaction,
    job_id: str,
    state: JobState,
    *,
    exit_code: int | None = None,
    started_at: float | None = None,
    ended_at: float | None = None,
    log_path: str | None = None,
    error: str | None = None,
    position: int | None = None,
) -> None:
    """Write what the host says now; None leaves a time, path or error as it was, but no
    position; an empty error clears it."""
    await transaction.execute(
        "UPDATE jobs SET state = ?, exit_code = ?, started_at = coalesce(?, started_at), "
        "ended_at = coalesce(?, ended_at), log_path = coalesce(?, log_path), "
        "error = nullif(coalesce(?, error), ''), seen_at = ?, position = ? "
        "WHERE id = ?",
        (state, exit_code, started_at, ended_at, log_path, error, now(), position, job_id),
    )


@dataclass(frozen=True, slots=True)
class QueueRequest:
    """A place in the queue that somebody asked for. `state` is asked, taken or refused (with the `reason`)."""

    id: int
    job_id: str
    position: int
    state: str
    reason: str | None
    asked_at: float
    answered_at: float | None


async def ask_for_position(transaction: Transaction, job_id: str, position: int) -> None:
    """Ask for a place, instead of what was asked for before and not answered yet."""
    await transaction.execute(
        "UPDATE queue_requests SET state = 'refused', reason = 'asked for another place', answered_at = ? "
        "WHERE job_id = ? AND state = 'asked'",
        (now(), job_id),
    )
    await transaction.execute(
        "INSERT INTO queue_requests (job_id, position, asked_at) VALUES (?, ?, ?)", (job_id, position, now())
    )
    await transaction.execute("UPDATE jobs SET seen_at = seen_at WHERE id = ?", (job_id,))  # news


async def answer_request(transaction: Transaction, request: QueueRequest, state: str, reason: str) -> None:
    await transaction.execute(
        "UPDATE queue_requests SET state = ?, reason = ?, answered_at = ? WHERE id = ?",
        (state, reason or None, now(), request.id),
    )
    await transaction.execute("UPDATE jobs SET seen_at = seen_at WHERE id = ?", (request.job_id,))  # news


async def last_request(queries: Queries, job_id: str) -> QueueRequest | None:
    return await queries.row(
        QueueRequest, "SELECT * FROM queue_requests WHERE job_id = ? ORDER BY id DESC LIMIT 1", (job_id,)
    )


async def append_events(
    transaction: Transaction, job_id: str, events_offset: int, events: Iterable[tuple[int, str, float, str]]
) -> None:
    """Store events [(seq, kind, at, payload JSON)] and the offset behind them together, each seq once."""
    await transaction.execute_many(
        "INSERT OR IGNORE INTO events (job_id, seq, kind, at, payload) VALUES (?, ?, ?, ?, ?)",
        [(job_id, *event) for event in events],
    )
    await transaction.execute(
        "UPDATE jobs SET events_offset = ?, seen_at = ? WHERE id = ?", (events_offset, now(), job_id)
    )


async def put_metrics(
    transaction: Transaction, job_id: str, step: int, values: Iterable[tuple[str, float | None]]
) -> None:
    """Figures of one step; a step done again after a resume takes the place of the first."""
    await transaction.execute_many(
        "INSERT OR REPLACE INTO metrics (job_id, name, step, value) VALUES (?, ?, ?, ?)",
        [(job_id, name, step, value) for name, value in values],
    )


async def by_id(queries: Queries, job_id: str) -> Job | None:
    return await queries.row(Job, "SELECT * FROM jobs WHERE id = ?", (job_id,))


async def every(queries: Queries, limit: int = 200) -> list[Job]:
    """Newest first."""
    return await queries.rows(Job, "SELECT * FROM jobs ORDER BY created_at DESC LIMIT ?", (limit,))


async def not_ended(queries: Queries) -> list[Job]:
    marks = ",".join("?" * len(ENDED))
    return await queries.rows(
        Job, f"SELECT * FROM jobs WHERE state NOT IN ({marks}) ORDER BY created_at", ENDED  # noqa: S608
    )  # fmt: skip


async def events(queries: Queries, job_id: str, *, kind: str | None = None, after: int = 0) -> list[Event]:
    return await queries.rows(
        Event,
        "SELECT seq, kind, at, payload FROM events "
        "WHERE job_id = ? AND seq > ? AND (? IS NULL OR kind = ?) ORDER BY seq",
        (job_id, after, kind, kind),
    )


async def metric(queries: Queries, job_id: str, name: str) -> list[tuple[int, float | None]]:
    """[(step, value)] in the order of steps; None where the figure was not finite."""
    rows = await queries.fetch_all(
        "SELECT step, value FROM metrics WHERE job_id = ? AND name = ? ORDER BY step", (job_id, name)
    )
    return [(row[0], row[1]) for row in rows]


async def metric_names(queries: Queries, job_id: str) -> list[str]:
    rows = await queries.fetch_all(
        "SELECT DISTINCT name FROM metrics WHERE job_id = ? ORDER BY name", (job_id,)
    )
    return [row[0] for row in rows]
