"""Rows of the registry: models, where each lies and what it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from backend.store.clock import now
from backend.store.connection import Json, Queries, Transaction

ModelKind = Literal["base", "adapter", "merged", "gguf", "ollama", "api"]


@dataclass(frozen=True, slots=True)
class Model:
    """`location` is a path on `host`, a tag or a name; `parent` names the model it was made from."""

    id: int
    name: str
    kind: ModelKind
    location: str
    host: str
    parent: str | None
    run_id: int | None
    size_bytes: int | None
    details: Json[dict[str, Any]]
    created_at: float
    change: int


async def put(
    transaction: Transaction,
    *,
    name: str,
    kind: ModelKind,
    location: str,
    host: str,
    parent: str | None = None,
    run_id: int | None = None,
    size_bytes: int | None = None,
    details: str = "{}",
) -> None:
    """Insert a model, or say anew what the one of that name is."""
    await transaction.execute(
        "INSERT INTO models (name, kind, location, host, parent, run_id, size_bytes, details, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, "
        "location = excluded.location, host = excluded.host, parent = excluded.parent, run_id = excluded.run_id, "
        "size_bytes = excluded.size_bytes, details = excluded.details",
        (name, kind, location, host, parent, run_id, size_bytes, details, now()),
    )


async def by_name(queries: Queries, name: str) -> Model | None:
    return await queries.row(Model, "SELECT * FROM models WHERE name = ?", (name,))


async def every(queries: Queries) -> list[Model]:
    """Newest first."""
    return await queries.rows(Model, "SELECT * FROM models ORDER BY id DESC")
