"""What the log of decisions says about a sample: the pure rule by which its columns can be rebuilt.

An undo takes back one decision, a redo takes back one undo. What then still stands decides: the last
approve, reject or flag gives the state, the last edit the revision, the last rate the rating. Where several
people decided about one sample, taking back an older decision leaves the newer one in force.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend.store.decisions import Decision, DecisionKind
from backend.store.samples import SampleState

STATE_OF: dict[DecisionKind, SampleState] = {
    "approve": "approved",
    "reject": "rejected",
    "flag": "flagged",
}


class ReviewError(ValueError):
    """A decision that cannot be made; the message says about which sample, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a sample is by its log. `decided_at` is None while no approve, reject or flag stands."""

    state: SampleState
    revision: int
    rating: int | None
    decided_at: float | None


def standing(log: Sequence[Decision], state: SampleState, revision: int) -> Standing:
    """Fold a sample's log, oldest first. `state` and `revision` are the sample's where the log is empty.

    While no decision about the state stands, the state is the one that the newest such moment's row found:
    gates may have moved a sample between two decisions, and only they do.
    """
    if log:
        state, revision = log[0].state_before, log[0].revision_before
    root: dict[int, Decision] = {}
    stands: dict[int, Decision] = {}
    for row in log:
        if not any(decision.kind in STATE_OF for decision in stands.values()):
            state = row.state_before
        decision = root[row.undoes] if row.undoes is not None else row
        root[row.id] = decision
        if row.kind == "undo":
            stands.pop(decision.id, None)
        else:
            stands[decision.id] = decision
    rating: int | None = None
    decided_at: float | None = None
    for _, decision in sorted(stands.items()):
        if decision.kind in STATE_OF:
            state, decided_at = STATE_OF[decision.kind], decision.at
        elif decision.kind == "edit":
            revision = decision.revision_after
        elif decision.kind == "rate":
            rating = decision.rating
    return Standing(state, revision, rating, decided_at)
