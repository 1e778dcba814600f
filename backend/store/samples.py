"""Rows of samples, their gates' results and revisions, and what makes duplicates findable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from backend.store.clock import now
from backend.store.connection import Json, Queries, Transaction, Value

SampleState = Literal["pending", "approved", "rejected", "flagged", "gated"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample as it is now. "gated" is one that a gate refused, the other states are reviewers'."""

    id: int
    uid: str
    campaign_id: int | None
    request_id: int | None
    domain: str
    family: str
    source: str
    state: SampleState
    revision: int
    instruction: str
    input: str
    output: str
    score: float | None
    rating: int | None
    provider: str | None
    model: str | None
    exact_hash: str
    extra: Json[dict[str, Any]]
    created_at: float
    decided_at: float | None
    change: int


@dataclass(frozen=True, slots=True)
class GateRow:
    name: str
    passed: bool | None
    figure: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Filter:
    """What a list of samples shows; an empty field filters nothing. `text` is full-text search."""

    campaign: str | None = None
    domain: str | None = None
    states: tuple[SampleState, ...] = field(default=())
    min_score: float | None = None
    model: str | None = None
    text: str | None = None


async def insert(
    transaction: Transaction,
    *,
    uid: str,
    domain: str,
    family: str,
    source: str,
    state: SampleState,
    instruction: str,
    input: str,
    output: str,
    exact_hash: str,
    author: str,
    campaign_id: int | None = None,
    request_id: int | None = None,
    score: float | None = None,
    provider: str | None = None,
    model: str | None = None,
    extra: str = "{}",
    created_at: float | None = None,
) -> int:
    """Insert a sample with its first revision; its id."""
    at = now() if created_at is None else created_at
    sample_id = await transaction.insert(
        "INSERT INTO samples (uid, campaign_id, request_id, domain, family, source, state, instruction, input, output, "
        "score, provider, model, exact_hash, extra, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (uid, campaign_id, request_id, domain, family, source, state, instruction, input, output, score, provider,
         model, exact_hash, extra, at),
    )  # fmt: skip
    await insert_revision(transaction, sample_id, 1, instruction, input, output, author)
    return sample_id


async def insert_revision(
    transaction: Transaction, sample_id: int, revision: int, instruction: str, input: str, output: str, author: str
) -> None:  # fmt: skip
    await transaction.execute(
        "INSERT INTO revisions (sample_id, revision, instruction, input, output, author, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (sample_id, revision, instruction, input, output, author, now()),
    )


async def insert_gates(transaction: Transaction, sample_id: int, gates: Iterable[GateRow]) -> None:
    await transaction.execute_many(
        "INSERT INTO gates (sample_id, position, name, passed, figure, reason) VALUES (?, ?, ?, ?, ?, ?)",
        [(sample_id, n, g.name, None if g.passed is None else int(g.passed), g.figure, g.reason)
         for n, g in enumerate(gates)],
    )  # fmt: skip


async def gates(queries: Queries, sample_id: int) -> list[GateRow]:
    return await queries.rows(
        GateRow,
        "SELECT name, passed, figure, reason FROM gates WHERE sample_id = ? ORDER BY position",
        (sample_id,),
    )


async def by_id(queries: Queries, sample_id: int) -> Sample | None:
    return await queries.row(Sample, "SELECT * FROM samples WHERE id = ?", (sample_id,))


async def by_uid(queries: Queries, uid: str) -> Sample | None:
    return await queries.row(Sample, "SELECT * FROM samples WHERE uid = ?", (uid,))


async def by_ids(queries: Queries, ids: Sequence[int]) -> list[Sample]:
    """The samples with these ids, in the order asked for; ids that are not there are left out."""
    marks = ",".join("?" * len(ids))
    found = await queries.rows(Sample, f"SELECT * FROM samples WHERE id IN ({marks})", tuple(ids))  # noqa: S608
    place = {sample.id: sample for sample in found}
    return [place[i] for i in ids if i in place]


def match_query(text: str) -> str:
    """User's words as an FTS5 query that cannot be a syntax error: every word quoted, the last a prefix."""
    words = [word.replace('"', '""') for word in text.split()]
    return " ".join(f'"{word}"' for word in words) + ("*" if words else "")


def where(filters: Filter) -> tuple[str, list[Value]]:
    """The filter as an SQL condition on `samples` and its parameters."""
    parts: list[str] = []
    values: list[Value] = []
    if filters.campaign is not None:
        parts.append("samples.campaign_id = (SELECT id FROM campaigns WHERE name = ?)")
        values.append(filters.campaign)
    if filters.domain is not None:
        parts.append("samples.domain = ?")
        values.append(filters.domain)
    if filters.states:
        parts.append(f"samples.state IN ({','.join('?' * len(filters.states))})")
        values.extend(filters.states)
    if filters.min_score is not None:
        parts.append("samples.score >= ?")
        values.append(filters.min_score)
    if filters.model is not None:
        parts.append("samples.model = ?")
        values.append(filters.model)
    if filters.text and filters.text.strip():
        parts.append("samples.id IN (SELECT rowid FROM samples_fts WHERE samples_fts MATCH ?)")
        values.append(match_query(filters.text))
    return (" AND ".join(parts) or "1"), values


async def ids(queries: Queries, filters: Filter, *, newest_first: bool = True, limit: int = -1) -> list[int]:
    """The ids that the filter leaves, in id order."""
    sql, values = ids_query(filters, newest_first=newest_first)
    return [row[0] for row in await queries.fetch_all(f"{sql} LIMIT ?", (*values, limit))]


def ids_query(filters: Filter, *, newest_first: bool = True) -> tuple[str, list[Value]]:
    """The statement that gives the filter's ids in id order, and its parameters.

    Words are looked for in the full-text index, which gives its rows in id order by itself: the first ones
    are there before the last is found. CROSS JOIN is SQLite's way to say in which order to join.
    """
    order = "DESC" if newest_first else "ASC"
    words = match_query(filters.text or "")
    if not words:
        condition, values = where(filters)
        return f"SELECT id FROM samples WHERE {condition} ORDER BY id {order}", values  # noqa: S608 - values are bound
    condition, values = where(replace(filters, text=None))
    return (
        "SELECT samples.id FROM samples_fts CROSS JOIN samples ON samples.id = samples_fts.rowid "  # noqa: S608
        f"WHERE samples_fts MATCH ? AND {condition} ORDER BY samples_fts.rowid {order}",
        [words, *values],
    )


async def count_by_state(queries: Queries, filters: Filter = Filter()) -> dict[str, int]:
    condition, values = where(filters)
    rows = await queries.fetch_all(
        f"SELECT state, count(*) FROM samples WHERE {condition} GROUP BY state",  # noqa: S608 - values are bound
        values,
    )
    return {row[0]: row[1] for row in rows}


async def id_by_hash(queries: Queries, exact_hash: str, *, besides: int | None = None) -> int | None:
    """A sample other than `besides`, not refused by a gate, whose normalised text has this hash."""
    value = await queries.fetch_value(
        "SELECT id FROM samples WHERE exact_hash = ? AND state != 'gated' AND id IS NOT ? ORDER BY id LIMIT 1",
        (exact_hash, besides),
    )
    return None if value is None else int(value)


def _keys(bands: Iterable[int]) -> list[str]:
    return [f"{band & 0xFFFF_FFFF_FFFF_FFFF:016x}" for band in bands]


async def insert_signature(
    transaction: Transaction, sample_id: int, signature: bytes, bands: Iterable[int]
) -> None:
    """Enter a sample that is not in the index."""
    await transaction.execute(
        "INSERT INTO signatures (sample_id, signature) VALUES (?, ?)", (sample_id, signature)
    )
    await transaction.execute(
        "INSERT INTO band_index (rowid, keys) VALUES (?, ?)", (sample_id, " ".join(_keys(bands)))
    )


async def sharing_bands(queries: Queries, bands: Sequence[int], limit: int = 200) -> list[tuple[int, bytes]]:
    """[(sample id, signature)] of the samples that share a band: candidates for near duplicates. Where there
    are more than `limit`, those that share most, the most first: samples of one template share some bands by
    the thousand, and the nearest must be among those that are looked at."""
    keys = _keys(bands)
    any_of = " OR ".join(f'"{key}"' for key in keys)
    rows = await queries.fetch_all(
        "SELECT rowid FROM band_index WHERE band_index MATCH ? LIMIT ?", (any_of, limit + 1)
    )
    if len(rows) > limit:
        one = "SELECT rowid FROM band_index WHERE band_index MATCH ?"
        rows = await queries.fetch_all(
            f"SELECT rowid FROM ({' UNION ALL '.join([one] * len(keys))}) "  # noqa: S608 - keys are bound
            "GROUP BY rowid ORDER BY count(*) DESC LIMIT ?",
            (*(f'"{key}"' for key in keys), limit),
        )
    found = [(row[0], await signature_of(queries, row[0])) for row in rows]
    return [(sample_id, signature) for sample_id, signature in found if signature is not None]


async def signature_of(queries: Queries, sample_id: int) -> bytes | None:
    found = await queries.fetch_value("SELECT signature FROM signatures WHERE sample_id = ?", (sample_id,))
    return None if found is None else bytes(found)


async def without_signature(queries: Queries, since: int, limit: int) -> list[Sample]:
    """Samples that are not turned away, changed after `since` of the change sequence, and not in the index of
    near duplicates: imported ones, and ones that a reviewer let in. In the order of their changes."""
    return await queries.rows(
        Sample,
        "SELECT * FROM samples WHERE change > ? AND state != 'gated' "
        "AND NOT EXISTS (SELECT 1 FROM signatures WHERE sample_id = samples.id) ORDER BY change LIMIT ?",
        (since, limit),
    )


async def newest_change(queries: Queries) -> int:
    return int(await queries.fetch_value("SELECT coalesce(max(change), 0) FROM samples"))


async def remove_signature(transaction: Transaction, sample_id: int, bands: Iterable[int]) -> None:
    """Take a sample out of the index; `bands` are those that it was entered with."""
    await transaction.execute(
        "INSERT INTO band_index (band_index, rowid, keys) VALUES ('delete', ?, ?)",
        (sample_id, " ".join(_keys(bands))),
    )
    await transaction.execute("DELETE FROM signatures WHERE sample_id = ?", (sample_id,))


async def replace_gates(transaction: Transaction, sample_id: int, gates: Iterable[GateRow]) -> None:
    await transaction.execute("DELETE FROM gates WHERE sample_id = ?", (sample_id,))
    await insert_gates(transaction, sample_id, gates)


async def set_gated(transaction: Transaction, sample_id: int, *, gated: bool) -> None:
    """What the gates say of a sample that no reviewer has decided about."""
    await transaction.execute(
        "UPDATE samples SET state = ? WHERE id = ? AND state IN ('pending', 'gated')",
        ("gated" if gated else "pending", sample_id),
    )
