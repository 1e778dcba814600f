"""The append-only log of decisions about samples, and the current state that follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from backend.store.clock import now
from backend.store.connection import Queries, Transaction
from backend.store.samples import Sample, SampleState

DecisionKind = Literal["approve", "reject", "flag", "skip", "edit", "rate", "undo", "redo"]
ReviewerKind = Literal["person", "policy"]


@dataclass(frozen=True, slots=True)
class Decision:
    id: int
    sample_id: int
    kind: DecisionKind
    reason: str | None
    rating: int | None
    reviewer: str
    reviewer_kind: ReviewerKind
    undoes: int | None
    state_before: SampleState
    state_after: SampleState
    revision_before: int
    revision_after: int
    at: float
    guidelines: str | None = None


async def append(
    transaction: Transaction,
    sample: Sample,
    kind: DecisionKind,
    *,
    reviewer: str,
    reviewer_kind: ReviewerKind,
    state_after: SampleState,
    revision_after: int,
    reason: str | None = None,
    rating: int | None = None,
    undoes: int | None = None,
    guidelines: str | None = None,
) -> int:
    """Append a decision and move the sample to what it says, in one transaction; the decision's id."""
    at = now()
    decision_id = await transaction.insert(
        "INSERT INTO decisions (sample_id, kind, reason, rating, reviewer, reviewer_kind, undoes, state_before, "
        "state_after, revision_before, revision_after, at, guidelines) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (sample.id, kind, reason, rating, reviewer, reviewer_kind, undoes, sample.state, state_after,
         sample.revision, revision_after, at, guidelines),
    )  # fmt: skip
    await transaction.execute(
        "UPDATE samples SET state = ?, revision = ?, decided_at = ?, rating = coalesce(?, rating) WHERE id = ?",
        (state_after, revision_after, at, rating, sample.id),
    )
    if revision_after != sample.revision:
        await transaction.execute(
            "UPDATE samples SET (instruction, input, output) = (SELECT instruction, input, output FROM revisions "
            "WHERE sample_id = ? AND revision = ?) WHERE id = ?",
            (sample.id, revision_after, sample.id),
        )
    return decision_id


async def of_sample(queries: Queries, sample_id: int) -> list[Decision]:
    """Oldest first."""
    return await queries.rows(
        Decision, "SELECT * FROM decisions WHERE sample_id = ? ORDER BY id", (sample_id,)
    )


async def last_undoable(queries: Queries, reviewer: str) -> Decision | None:
    """The reviewer's newest decision that stands: neither an undo nor undone."""
    return await queries.row(
        Decision,
        "SELECT * FROM decisions AS d WHERE reviewer = ? AND kind != 'undo' AND NOT EXISTS "
        "(SELECT 1 FROM decisions AS u WHERE u.undoes = d.id AND u.kind = 'undo') ORDER BY id DESC LIMIT 1",
        (reviewer,),
    )


async def last_redoable(queries: Queries, reviewer: str) -> Decision | None:
    """The reviewer's newest undo, if no other decision of theirs came after it."""
    last = await queries.row(
        Decision, "SELECT * FROM decisions WHERE reviewer = ? ORDER BY id DESC LIMIT 1", (reviewer,)
    )
    if last is None or last.kind not in ("undo", "redo"):
        return None
    return await queries.row(
        Decision,
        "SELECT * FROM decisions AS d WHERE reviewer = ? AND kind = 'undo' AND NOT EXISTS "
        "(SELECT 1 FROM decisions AS r WHERE r.kind = 'redo' AND r.undoes = d.id) "
        "AND id > coalesce((SELECT max(id) FROM decisions WHERE reviewer = ? AND kind NOT IN ('undo', 'redo')), 0) "
        "ORDER BY id DESC LIMIT 1",
        (reviewer, reviewer),
    )


async def count_since(queries: Queries, reviewer: str, since: float) -> int:
    return int(
        await queries.fetch_value(
            "SELECT count(*) FROM decisions WHERE reviewer = ? AND at >= ?", (reviewer, since)
        )
    )
