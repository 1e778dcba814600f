"""Rows of candidates, pairs and the append-only log of decisions about pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from backend.store.clock import now
from backend.store.connection import Queries, Transaction
from backend.store.decisions import ReviewerKind

PairState = Literal["pending", "decided", "tie", "bad"]
Side = Literal["chosen", "rejected"]


@dataclass(frozen=True, slots=True)
class Candidate:
    id: int
    batch: str
    prompt_key: str
    prompt: str
    request_id: int | None
    model: str
    temperature: float | None
    output: str
    scorer: str
    score: float | None
    detail: str
    created_at: float


@dataclass(frozen=True, slots=True)
class Pair:
    """`chosen` is the text preferred as of now; "pending" means that only the scorer has said so."""

    id: int
    uid: str
    batch: str
    prompt: str
    chosen: str
    rejected: str
    margin: float | None
    scorer: str
    source: str
    state: PairState
    created_at: float
    decided_at: float | None
    change: int


@dataclass(frozen=True, slots=True)
class PairDecision:
    id: int
    pair_id: int
    choice: Literal["left", "right", "tie", "bad", "undo"]
    left_is: Side
    swapped: bool
    state_before: PairState
    state_after: PairState
    reviewer: str
    reviewer_kind: ReviewerKind
    undoes: int | None
    at: float


async def insert_candidate(
    transaction: Transaction,
    *,
    batch: str,
    prompt_key: str,
    prompt: str,
    request_id: int | None,
    model: str,
    temperature: float | None,
    output: str,
    scorer: str,
    score: float | None,
    detail: str,
) -> int:
    return await transaction.insert(
        "INSERT OR IGNORE INTO candidates (batch, prompt_key, prompt, request_id, model, temperature, output, scorer, "
        "score, detail, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (batch, prompt_key, prompt, request_id, model, temperature, output, scorer, score, detail, now()),
    )


async def candidates(queries: Queries, batch: str) -> list[Candidate]:
    return await queries.rows(Candidate, "SELECT * FROM candidates WHERE batch = ? ORDER BY id", (batch,))


async def insert(
    transaction: Transaction,
    *,
    uid: str,
    batch: str,
    prompt: str,
    chosen: str,
    rejected: str,
    margin: float | None,
    scorer: str,
    source: str,
    state: PairState = "pending",
) -> int:
    """Insert a pair; a pair that is already there (by uid) stays as it is."""
    return await transaction.insert(
        "INSERT OR IGNORE INTO pairs (uid, batch, prompt, chosen, rejected, margin, scorer, source, state, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (uid, batch, prompt, chosen, rejected, margin, scorer, source, state, now()),
    )


async def decide(
    transaction: Transaction,
    pair: Pair,
    choice: Literal["left", "right", "tie", "bad", "undo"],
    *,
    left_is: Side,
    swapped: bool,
    state_after: PairState,
    reviewer: str,
    reviewer_kind: ReviewerKind,
    undoes: int | None = None,
) -> int:
    """Append a decision; where it is `swapped`, chosen and rejected change places."""
    at = now()
    decision_id = await transaction.insert(
        "INSERT INTO pair_decisions (pair_id, choice, left_is, swapped, state_before, state_after, reviewer, "
        "reviewer_kind, undoes, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            pair.id,
            choice,
            left_is,
            int(swapped),
            pair.state,
            state_after,
            reviewer,
            reviewer_kind,
            undoes,
            at,
        ),
    )
    chosen, rejected = (pair.rejected, pair.chosen) if swapped else (pair.chosen, pair.rejected)
    await transaction.execute(
        "UPDATE pairs SET state = ?, chosen = ?, rejected = ?, decided_at = ? WHERE id = ?",
        (state_after, chosen, rejected, at, pair.id),
    )
    return decision_id


async def last_undoable(queries: Queries, reviewer: str) -> PairDecision | None:
    """The reviewer's newest decision about a pair that is neither an undo nor undone."""
    return await queries.row(
        PairDecision,
        "SELECT * FROM pair_decisions AS d WHERE reviewer = ? AND choice != 'undo' AND NOT EXISTS "
        "(SELECT 1 FROM pair_decisions AS u WHERE u.undoes = d.id) ORDER BY id DESC LIMIT 1",
        (reviewer,),
    )


async def by_id(queries: Queries, pair_id: int) -> Pair | None:
    return await queries.row(Pair, "SELECT * FROM pairs WHERE id = ?", (pair_id,))


async def ids(queries: Queries, state: PairState | None = None, batch: str | None = None) -> list[int]:
    """Oldest first."""
    rows = await queries.fetch_all(
        "SELECT id FROM pairs WHERE (? IS NULL OR state = ?) AND (? IS NULL OR batch = ?) ORDER BY id",
        (state, state, batch, batch),
    )
    return [row[0] for row in rows]


async def every(queries: Queries, state: PairState | None = None, batch: str | None = None) -> list[Pair]:
    return await queries.rows(
        Pair, "SELECT * FROM pairs WHERE (? IS NULL OR state = ?) AND (? IS NULL OR batch = ?) ORDER BY id",
        (state, state, batch, batch),
    )  # fmt: skip


async def count_by_state(queries: Queries) -> dict[str, int]:
    return {
        row[0]: row[1] for row in await queries.fetch_all("SELECT state, count(*) FROM pairs GROUP BY state")
    }
