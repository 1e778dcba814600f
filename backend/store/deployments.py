"""Rows of deployments and of the exchanges that people had with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from backend.store.clock import now
from backend.store.connection import Json, Queries, Transaction

DeploymentKind = Literal["hf", "gguf", "ollama", "vllm"]
DeploymentState = Literal["starting", "serving", "published", "stopped", "failed", "replaced"]


@dataclass(frozen=True, slots=True)
class Deployment:
    """ "serving" answers at `endpoint`; "published" is a folder or tag that needs no process of ours."""

    id: int
    name: str
    version: int
    kind: DeploymentKind
    model: str
    host: str
    state: DeploymentState
    endpoint: str | None
    job_id: str | None
    details: Json[dict[str, Any]]
    error: str | None
    created_at: float
    ended_at: float | None
    change: int


async def insert(
    transaction: Transaction, *, name: str, kind: DeploymentKind, model: str, host: str, details: str
) -> int:
    """Insert the next version of the named deployment in state "starting"; its id."""
    return await transaction.insert(
        "INSERT INTO deployments (name, version, kind, model, host, state, details, created_at) "
        "SELECT ?, coalesce(max(version), 0) + 1, ?, ?, ?, 'starting', ?, ? FROM deployments WHERE name = ?",
        (name, kind, model, host, details, now(), name),
    )


async def update(
    transaction: Transaction,
    deployment_id: int,
    state: DeploymentState,
    *,
    endpoint: str | None = None,
    job_id: str | None = None,
    details: str | None = None,
    error: str | None = None,
) -> None:
    """Move a deployment; None leaves endpoint, job and details as they were."""
    await transaction.execute(
        "UPDATE deployments SET state = ?, endpoint = coalesce(?, endpoint), job_id = coalesce(?, job_id), "
        "details = coalesce(?, details), error = ?, "
        "ended_at = CASE WHEN ? IN ('stopped', 'failed', 'replaced') THEN ? ELSE NULL END WHERE id = ?",
        (state, endpoint, job_id, details, error, state, now(), deployment_id),
    )


async def by_id(queries: Queries, deployment_id: int) -> Deployment | None:
    return await queries.row(Deployment, "SELECT * FROM deployments WHERE id = ?", (deployment_id,))


async def current(queries: Queries, name: str) -> Deployment | None:
    """The version of the named deployment that answers now, else its newest."""
    return await queries.row(
        Deployment,
        "SELECT * FROM deployments WHERE name = ? "
        "ORDER BY state IN ('serving', 'published') DESC, version DESC LIMIT 1",
        (name,),
    )


async def every(queries: Queries) -> list[Deployment]:
    """Newest first."""
    return await queries.rows(Deployment, "SELECT * FROM deployments ORDER BY id DESC")


async def insert_exchange(
    transaction: Transaction, deployment_id: int | None, message: str, reply: str, request_id: int | None
) -> int:
    return await transaction.insert(
        "INSERT INTO exchanges (deployment_id, request_id, message, reply, at) VALUES (?, ?, ?, ?, ?)",
        (deployment_id, request_id, message, reply, now()),
    )


async def rate_exchange(transaction: Transaction, exchange_id: int, rating: Literal[-1, 1]) -> None:
    await transaction.execute("UPDATE exchanges SET rating = ? WHERE id = ?", (rating, exchange_id))
