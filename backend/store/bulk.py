"""Inserts many samples at once: one statement for each table and batch, where an import has a million rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend.store.clock import now
from backend.store.connection import Transaction
from backend.store.samples import GateRow, SampleState


@dataclass(frozen=True, slots=True)
class NewSample:
    """A sample that came from a file. `gate` is one that turned it away before it came here, and `approver`
    the policy that approves it; without either it is pending."""

    uid: str
    domain: str
    family: str
    source: str
    instruction: str
    input: str
    output: str
    exact_hash: str
    score: float | None
    extra: str
    created_at: float
    gate: GateRow | None = None
    approver: str | None = None

    @property
    def state(self) -> SampleState:
        if self.gate is not None:
            return "gated"
        return "approved" if self.approver is not None else "pending"


@dataclass(frozen=True, slots=True)
class KnownSample:
    """A sample that is here already, with every text (instruction, input, output) that it ever had."""

    id: int
    texts: frozenset[tuple[str, str, str]]


async def known_samples(transaction: Transaction, wanted: Sequence[str]) -> dict[str, KnownSample]:
    """Those of the `wanted` uids that are here already."""
    marks = ",".join("?" * len(wanted))
    rows = await transaction.fetch_all(
        "SELECT uid, id, r.instruction, r.input, r.output FROM samples JOIN revisions AS r ON sample_id = id "  # noqa: S608
        f"WHERE uid IN ({marks})",
        tuple(wanted),
    )
    known: dict[str, KnownSample] = {}
    for uid, sample_id, *text in rows:
        earlier = known[uid].texts if uid in known else frozenset()
        known[uid] = KnownSample(sample_id, earlier | {(text[0], text[1], text[2])})
    return known


async def insert_samples(
    transaction: Transaction, new: Sequence[NewSample], *, author: str, campaign_id: int | None = None
) -> list[int]:
    """Insert samples with their first revisions, gates and approvals; their ids, in order. Uids must be new."""
    at = now()
    first = 1 + await transaction.fetch_value("SELECT coalesce(max(id), 0) FROM samples")
    numbered = list(enumerate(new, first))
    await transaction.execute_many(
        "INSERT INTO samples (id, uid, campaign_id, domain, family, source, state, instruction, input, output, score, "
        "exact_hash, extra, created_at, decided_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (n, s.uid, campaign_id, s.domain, s.family, s.source, s.state, s.instruction, s.input, s.output, s.score,
             s.exact_hash, s.extra, s.created_at, at if s.state == "approved" else None)
            for n, s in numbered
        ],
    )  # fmt: skip
    await transaction.execute_many(
        "INSERT INTO revisions (sample_id, revision, instruction, input, output, author, created_at) "
        "VALUES (?, 1, ?, ?, ?, ?, ?)",
        [(n, s.instruction, s.input, s.output, author, at) for n, s in numbered],
    )
    await transaction.execute_many(
        "INSERT INTO gates (sample_id, position, name, passed, figure, reason) VALUES (?, 0, ?, 0, ?, ?)",
        [(n, s.gate.name, s.gate.figure, s.gate.reason) for n, s in numbered if s.gate is not None],
    )
    await transaction.execute_many(
        "INSERT INTO decisions (sample_id, kind, reviewer, reviewer_kind, state_before, state_after, revision_before, "
        "revision_after, at) VALUES (?, 'approve', ?, 'policy', 'pending', 'approved', 1, 1, ?)",
        [(n, s.approver, at) for n, s in numbered if s.state == "approved"],
    )
    return [n for n, _ in numbered]


@dataclass(frozen=True, slots=True)
class NewPair:
    """A pair that came from a file."""

    uid: str
    prompt: str
    chosen: str
    rejected: str
    margin: float | None
    scorer: str
    source: str


async def insert_pairs(transaction: Transaction, new: Sequence[NewPair], *, batch: str) -> int:
    """Insert pairs that nobody has decided about; those that are here already (by uid) stay as they are, and
    of several with one uid the first counts. Returns how many were new."""
    uids = tuple({pair.uid for pair in new})
    marks = ",".join("?" * len(uids))
    known = await transaction.fetch_value(
        f"SELECT count(*) FROM pairs WHERE uid IN ({marks})",  # noqa: S608 - values are bound
        uids,
    )
    await transaction.execute_many(
        "INSERT OR IGNORE INTO pairs (uid, batch, prompt, chosen, rejected, margin, scorer, source, state, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'pending', ?)",
        [(p.uid, batch, p.prompt, p.chosen, p.rejected, p.margin, p.scorer, p.source, now()) for p in new],
    )
    return len(uids) - int(known)
