"""Rows of dataset versions: what each was made of, frozen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from backend.store.clock import now
from backend.store.connection import Json, Queries, Transaction


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """`train`, `val` and `test` count rows; `path` is the folder with the JSONL files."""

    id: int
    name: str
    version: int
    path: str
    content_hash: str
    seed: int
    filters: Json[dict[str, Any]]
    train: int
    val: int
    test: int
    created_at: float


async def next_version(queries: Queries, name: str) -> int:
    value = await queries.fetch_value(
        "SELECT coalesce(max(version), 0) + 1 FROM dataset_versions WHERE name = ?", (name,)
    )
    return int(value)


async def insert(
    transaction: Transaction,
    *,
    name: str,
    version: int,
    path: str,
    content_hash: str,
    seed: int,
    filters: str,
    counts: dict[str, int],
    members: Iterable[tuple[int, int, str]],
) -> int:
    """Insert a version with its members [(sample id, revision, split)]; its id."""
    dataset_id = await transaction.insert(
        "INSERT INTO dataset_versions (name, version, path, content_hash, seed, filters, train, val, test, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            name,
            version,
            path,
            content_hash,
            seed,
            filters,
            counts["train"],
            counts["val"],
            counts["test"],
            now(),
        ),
    )
    await transaction.execute_many(
        "INSERT INTO dataset_rows (dataset_id, sample_id, revision, split) VALUES (?, ?, ?, ?)",
        [(dataset_id, sample, revision, split) for sample, revision, split in members],
    )
    return dataset_id


async def every(queries: Queries) -> list[DatasetVersion]:
    """Newest first."""
    return await queries.rows(DatasetVersion, "SELECT * FROM dataset_versions ORDER BY id DESC")


async def find(queries: Queries, name: str, version: int | None = None) -> DatasetVersion | None:
    """The named version, or the newest of that name."""
    return await queries.row(
        DatasetVersion,
        "SELECT * FROM dataset_versions WHERE name = ? AND (? IS NULL OR version = ?) ORDER BY version DESC LIMIT 1",
        (name, version, version),
    )


async def by_id(queries: Queries, dataset_id: int) -> DatasetVersion | None:
    return await queries.row(DatasetVersion, "SELECT * FROM dataset_versions WHERE id = ?", (dataset_id,))
