"""Decisions about everything that a filter shows, recorded as a policy's and never as a person's.

Work goes in batches of `BATCH` samples, each one transaction, so that others can write in between; after a
crash the batches that were committed stand in the log, and the same call does the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from backend.review.deciding import reverse
from backend.review.log import STATE_OF, ReviewError
from backend.settings import Workspace
from backend.store import samples
from backend.store.clock import now
from backend.store.decisions import Decision, DecisionKind
from backend.store.samples import Filter

BATCH = 1000


@dataclass(frozen=True, slots=True)
class Bulk:
    """What a policy did: its decisions are those of its name from `first_decision` to `last_decision`, both
    included; both are 0 where nothing matched."""

    policy: str
    count: int
    first_decision: int
    last_decision: int


async def matching(ws: Workspace, filter: Filter) -> int:
    """The dry run: how many samples `approve_by_policy` would approve now."""
    found = await samples.count_by_state(ws.db, _open(filter))
    return sum(count for state, count in found.items() if state != "approved")


async def approve_by_policy(ws: Workspace, filter: Filter, policy: str) -> Bulk:
    """Approve what the filter shows; without states in it only what is pending, so that a policy overrules
    neither a person nor a gate unless it is told to. Raises ReviewError for a policy without a name."""
    return await _decide(ws, _open(filter), policy, "approve", None)


async def reject_by_policy(ws: Workspace, filter: Filter, policy: str, reason: str) -> Bulk:
    """Reject what the filter shows; without states in it only what is pending. Raises ReviewError."""
    return await _decide(ws, _open(filter), policy, "reject", reason)


async def undo_bulk(ws: Workspace, bulk: Bulk) -> int:
    """Take back every decision of `bulk` that still stands; how many those were. What people decided about
    the same samples afterwards stays in force."""
    undone = 0
    while True:
        async with ws.db.transaction() as transaction:
            rows = await transaction.rows(
                Decision,
                "SELECT * FROM decisions AS d WHERE id BETWEEN ? AND ? AND reviewer = ? AND reviewer_kind = 'policy' "
                "AND kind IN ('approve', 'reject') AND NOT EXISTS (SELECT 1 FROM decisions AS u "
                "WHERE u.sample_id = d.sample_id AND u.undoes = d.id) ORDER BY id DESC LIMIT ?",
                (bulk.first_decision, bulk.last_decision, bulk.policy, BATCH),
            )
            for row in rows:
                await reverse(transaction, "undo", row)
        undone += len(rows)
        if len(rows) < BATCH:
            return undone


def _open(filter: Filter) -> Filter:
    return filter if filter.states else replace(filter, states=("pending",))


async def _decide(
    ws: Workspace, filter: Filter, policy: str, decision: DecisionKind, reason: str | None
) -> Bulk:
    if not policy.strip():
        raise ReviewError("a bulk decision needs the policy's name: it is recorded with every decision")
    state = STATE_OF[decision]
    condition, values = samples.where(filter)
    count = first = last = after = 0
    while True:
        async with ws.db.transaction() as transaction:
            found = await transaction.fetch_all(
                f"SELECT id FROM samples WHERE {condition} AND state != ? AND id > ? ORDER BY id LIMIT ?",  # noqa: S608
                (*values, state, after, BATCH),
            )
            if not found:
                return Bulk(policy, count, first, last)
            ids = [row[0] for row in found]
            marks = ",".join("?" * len(ids))
            at = now()
            top = await transaction.fetch_value("SELECT coalesce(max(id), 0) FROM decisions")
            await transaction.execute(
                "INSERT INTO decisions (sample_id, kind, reason, reviewer, reviewer_kind, state_before, state_after, "  # noqa: S608
                "revision_before, revision_after, at) SELECT id, ?, ?, ?, 'policy', state, ?, revision, revision, ? "
                f"FROM samples WHERE id IN ({marks}) ORDER BY id",
                (decision, reason, policy, state, at, *ids),
            )
            await transaction.execute(
                f"UPDATE samples SET state = ?, decided_at = ? WHERE id IN ({marks})",  # noqa: S608
                (state, at, *ids),
            )
        first = first or top + 1
        last, after, count = top + len(ids), ids[-1], count + len(ids)
