"""People choose between the two answers of a pair, without knowing which one the scorer preferred.

Which answer stands left follows from a seed and the two texts alone: it is drawn once for each pair, stays
the same whatever was decided before, and each decision records it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from backend.preferences.errors import PreferenceError
from backend.settings import Workspace
from backend.store import Queries, Transaction, pairs
from backend.store.decisions import ReviewerKind
from backend.store.pairs import Pair, PairDecision, PairState, Side

Choice = Literal["left", "right", "tie", "bad"]


@dataclass(frozen=True, slots=True)
class PairView:
    """A pair as a reviewer sees it: two answers side by side. `left_is` stays hidden from them."""

    pair: Pair
    left: str
    right: str
    left_is: Side


def blind(pair: Pair, seed: int = 0) -> PairView:
    """The two answers in the order that the seed draws for them."""
    chosen_left = _drawn(seed, pair.prompt, pair.chosen) < _drawn(seed, pair.prompt, pair.rejected)
    if chosen_left:
        return PairView(pair, pair.chosen, pair.rejected, "chosen")
    return PairView(pair, pair.rejected, pair.chosen, "rejected")


async def view(ws: Workspace, pair_id: int, *, seed: int = 0) -> PairView:
    """One pair. Raises PreferenceError where there is none of this id."""
    return blind(await _pair(ws.db, pair_id), seed)


async def next_pair(
    ws: Workspace, *, batch: str | None = None, after: int = 0, seed: int = 0
) -> PairView | None:
    """The first pair after the id `after` that nobody has decided about; None where there is none."""
    pair = await ws.db.row(
        Pair,
        "SELECT * FROM pairs WHERE state = 'pending' AND id > ? AND (? IS NULL OR batch = ?) ORDER BY id LIMIT 1",
        (after, batch, batch),
    )
    return None if pair is None else blind(pair, seed)


async def ids(ws: Workspace, *, state: PairState | None = None, batch: str | None = None) -> list[int]:
    """Oldest first."""
    return await pairs.ids(ws.db, state, batch)


async def every(ws: Workspace, *, state: PairState | None = None, batch: str | None = None) -> list[Pair]:
    """Oldest first."""
    return await pairs.every(ws.db, state, batch)


async def counts(ws: Workspace) -> dict[PairState, int]:
    """How many pairs are in each state, those with none as 0."""
    found = await pairs.count_by_state(ws.db)
    states: tuple[PairState, ...] = ("pending", "decided", "tie", "bad")
    return {state: found.get(state, 0) for state in states}


async def choose(
    ws: Workspace,
    pair_id: int,
    choice: Choice,
    *,
    reviewer: str | None = None,
    kind: ReviewerKind = "person",
    seed: int = 0,
) -> PairView:
    """Say which answer is better, that they tie, or that both are bad; one transaction. `seed` is the one
    that the pair was shown with. Returns the pair as it is now. Raises PreferenceError."""
    if choice not in ("left", "right", "tie", "bad"):
        raise PreferenceError(f"{choice!r} is no choice: left, right, tie or bad")
    async with ws.db.transaction() as transaction:
        shown = blind(await _pair(transaction, pair_id), seed)
        picked_left = choice == "left"
        decides = choice in ("left", "right")
        state: PairState = "decided" if decides else "tie" if choice == "tie" else "bad"
        await pairs.decide(
            transaction,
            shown.pair,
            choice,
            left_is=shown.left_is,
            swapped=decides and picked_left != (shown.left_is == "chosen"),
            state_after=state,
            reviewer=reviewer or ws.settings.review.reviewer,
            reviewer_kind=kind,
        )
        return blind(await _pair(transaction, pair_id), seed)


async def undo(ws: Workspace, *, reviewer: str | None = None, seed: int = 0) -> PairView | None:
    """Take back the reviewer's last choice that stands; the pair as it is then, or None where none is left.
    Where somebody decided about the same pair afterwards, their choice stays in force."""
    async with ws.db.transaction() as transaction:
        last = await pairs.last_undoable(transaction, reviewer or ws.settings.review.reviewer)
        if last is None:
            return None
        pair = await _pair(transaction, last.pair_id)
        log = await _log(transaction, pair.id)
        state, turned = standing(log, undone=last.id)
        now_turned = sum(row.swapped for row in log) % 2 == 1
        await pairs.decide(
            transaction,
            pair,
            "undo",
            left_is=blind(pair, seed).left_is,
            swapped=turned != now_turned,
            state_after=state,
            reviewer=last.reviewer,
            reviewer_kind=last.reviewer_kind,
            undoes=last.id,
        )
        return blind(await _pair(transaction, pair.id), seed)


def standing(log: Sequence[PairDecision], undone: int | None = None) -> tuple[PairState, bool]:
    """What the log of a pair says: its state, and whether chosen and rejected have changed places since the
    pair was made. `undone` is a decision to leave out. The log must not be empty."""
    taken_back = {row.undoes for row in log if row.undoes is not None} | {undone}
    state, turned = log[0].state_before, False
    turns = False
    for row in log:
        turns ^= row.swapped
        if row.choice != "undo" and row.id not in taken_back:
            state, turned = row.state_after, turns
    return state, turned


async def accept_by_policy(ws: Workspace, batch: str, policy: str) -> int:
    """Take the scorer's word for every pending pair of a batch that has a margin, recorded as a policy's
    decisions; how many. One transaction."""
    if not policy.strip():
        raise PreferenceError("a decision about a whole batch needs the policy's name")
    async with ws.db.transaction() as transaction:
        waiting = [p for p in await pairs.every(transaction, "pending", batch) if p.margin is not None]
        for pair in waiting:
            shown = blind(pair)
            await pairs.decide(
                transaction,
                pair,
                "left" if shown.left_is == "chosen" else "right",
                left_is=shown.left_is,
                swapped=False,
                state_after="decided",
                reviewer=policy,
                reviewer_kind="policy",
            )
    return len(waiting)


async def _log(queries: Queries, pair_id: int) -> list[PairDecision]:
    return await queries.rows(
        PairDecision, "SELECT * FROM pair_decisions WHERE pair_id = ? ORDER BY id", (pair_id,)
    )


async def _pair(queries: Queries | Transaction, pair_id: int) -> Pair:
    pair = await pairs.by_id(queries, pair_id)
    if pair is None:
        raise PreferenceError(f"no pair {pair_id}; hafs-tui preferences list shows which there are")
    return pair


def _drawn(seed: int, prompt: str, answer: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{prompt}\0{answer}".encode("utf-8", "surrogatepass")).digest()
