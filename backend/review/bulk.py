"""Decisions about everything that a filter shows, recorded as a policy's and never as a person's.

Work goes in batches of `BATCH` samples, each one transaction, so that others can write in between; after a
crash the batches that were committed stand in the log, and the same call does the rest.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from backend.review.deciding import reverse
from backend.review.log import STATE_OF, ReviewError
from backend.settings import Workspace
from backend.store import samples
from backend.store.clock import now
from backend.store.connection import Json, Transaction
from backend.store.decisions import Decision
from backend.store.samples import Filter

BATCH = 1000

BulkKind = Literal["approve", "reject"]


@dataclass(frozen=True, slots=True)
class Bulk:
    """What a policy did: its decisions are those of its name from `first_decision` to `last_decision`, both
    included. `id` is 0 where nothing matched: then there is nothing to take back. `filter` is in words of ours."""

    id: int
    policy: str
    kind: BulkKind
    reason: str | None
    filter: Json[dict[str, Any]]
    count: int
    first_decision: int
    last_decision: int
    at: float
    undone_at: float | None


def policy_of(ws: Workspace) -> str:
    """The name under which a person's decision about all that a filter shows is recorded."""
    return f"{ws.settings.review.reviewer} (all of a filter)"


async def matching(ws: Workspace, filter: Filter, kind: BulkKind = "approve") -> int:
    """The dry run: how many samples such a bulk decision would decide about now."""
    found = await samples.count_by_state(ws.db, _open(filter))
    return sum(count for state, count in found.items() if state != STATE_OF[kind])


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
            if len(rows) < BATCH:
                await transaction.execute("UPDATE bulks SET undone_at = ? WHERE id = ?", (now(), bulk.id))
        undone += len(rows)
        if len(rows) < BATCH:
            return undone


async def last_bulk(ws: Workspace) -> Bulk | None:
    """The newest bulk decision that was not taken back, also one of another day or process."""
    return await ws.db.row(Bulk, "SELECT * FROM bulks WHERE undone_at IS NULL ORDER BY id DESC LIMIT 1")


async def bulk_by_id(ws: Workspace, bulk_id: int) -> Bulk:
    """Raises ReviewError where there is no such bulk decision."""
    found = await ws.db.row(Bulk, "SELECT * FROM bulks WHERE id = ?", (bulk_id,))
    if found is None:
        raise ReviewError(f"no bulk decision {bulk_id}; hafs-tui samples undo-bulk takes the last one back")
    return found


def _open(filter: Filter) -> Filter:
    return filter if filter.states else replace(filter, states=("pending",))


async def _decide(ws: Workspace, filter: Filter, policy: str, decision: BulkKind, reason: str | None) -> Bulk:
    if not policy.strip():
        raise ReviewError("a bulk decision needs the policy's name: it is recorded with every decision")
    state = STATE_OF[decision]
    condition, values = samples.where(filter)
    bulk = Bulk(0, policy, decision, reason, json.loads(json.dumps(asdict(filter))), 0, 0, 0, now(), None)
    after = 0
    while True:
        async with ws.db.transaction() as transaction:
            found = await transaction.fetch_all(
                f"SELECT id FROM samples WHERE {condition} AND state != ? AND id > ? ORDER BY id LIMIT ?",  # noqa: S608
                (*values, state, after, BATCH),
            )
            if not found:
                return bulk
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
            after, last = ids[-1], top + len(ids)
            first = bulk.first_decision or top + 1
            bulk = replace(bulk, count=bulk.count + len(ids), first_decision=first, last_decision=last)
            bulk = replace(bulk, id=await _record(transaction, bulk))


async def _record(transaction: Transaction, bulk: Bulk) -> int:
    """Write what was done so far, in the transaction that does it; the bulk decision's id."""
    if bulk.id:
        await transaction.execute(
            "UPDATE bulks SET count = ?, last_decision = ? WHERE id = ?",
            (bulk.count, bulk.last_decision, bulk.id),
        )
        return bulk.id
    return await transaction.insert(
        "INSERT INTO bulks (policy, kind, reason, filter, count, first_decision, last_decision, at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (bulk.policy, bulk.kind, bulk.reason, json.dumps(bulk.filter), bulk.count, bulk.first_decision,
         bulk.last_decision, bulk.at),
    )  # fmt: skip
