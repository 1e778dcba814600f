"""Makes pairs of a batch's candidates: the best answer to a prompt against the worst, with a margin.

Nothing can be learnt from a tie or from two answers that say the same, so they make no pair. Longer answers
tend to win whatever they say; the report tells how much longer the chosen ones are.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from backend.datasets.intake import pair_uid
from backend.settings import Workspace
from backend.similarity.minhash import jaccard
from backend.similarity.normalise import normalise_text
from backend.store import bulk, pairs
from backend.store.bulk import NewPair
from backend.store.pairs import Candidate

NEAR_EQUAL = 0.95
_PAGE = 500
NoPair = Literal["tie", "near_equal", "too_few"]


@dataclass(frozen=True, slots=True)
class PairingReport:
    """What a batch's prompts gave: `pairs` new pairs, `known` that were there before, and why the others gave
    none. `unscored` candidates were left out. `longer_chosen` is the share of pairs whose chosen answer is
    the longer one (0.5 would be no bias; None without pairs), `mean_length_difference` in characters."""

    batch: str
    prompts: int
    pairs: int
    known: int
    ties: int
    near_equal: int
    too_few: int
    unscored: int
    longer_chosen: float | None
    mean_length_difference: float | None


@dataclass(slots=True)
class _Found:
    pairs: list[NewPair] = field(default_factory=list)
    none: dict[NoPair, int] = field(default_factory=lambda: {"tie": 0, "near_equal": 0, "too_few": 0})
    unscored: int = 0


async def pair_up(ws: Workspace, batch: str, *, min_margin: float = 0.1, seed: int = 0) -> PairingReport:
    """Store the pairs of a batch as pending; pairs that are there already stay as they are.

    A scored batch gives one pair a prompt, where best and worst are at least `min_margin` (0 to 1) apart. A
    batch of the scorer "human" gives disjoint pairs of different answers without a margin, for people to decide.
    """
    found = _Found()
    by_prompt: defaultdict[str, list[Candidate]] = defaultdict(list)
    for candidate in await pairs.candidates(ws.db, batch):
        by_prompt[candidate.prompt_key].append(candidate)
    for candidates in by_prompt.values():
        if candidates[0].scorer == "human":
            _for_people(candidates, seed, found)
        else:
            _best_and_worst(candidates, min_margin, seed, found)
    new = 0
    for start in range(0, len(found.pairs), _PAGE):
        async with ws.db.transaction() as transaction:
            new += await bulk.insert_pairs(transaction, found.pairs[start : start + _PAGE], batch=batch)
    lengths = [len(pair.chosen) - len(pair.rejected) for pair in found.pairs if pair.margin is not None]
    return PairingReport(
        batch=batch,
        prompts=len(by_prompt),
        pairs=new,
        known=len(found.pairs) - new,
        ties=found.none["tie"],
        near_equal=found.none["near_equal"],
        too_few=found.none["too_few"],
        unscored=found.unscored,
        longer_chosen=sum(length > 0 for length in lengths) / len(lengths) if lengths else None,
        mean_length_difference=sum(lengths) / len(lengths) if lengths else None,
    )


def _best_and_worst(candidates: Sequence[Candidate], min_margin: float, seed: int, found: _Found) -> None:
    scored = [candidate for candidate in candidates if candidate.score is not None]
    found.unscored += len(candidates) - len(scored)
    if len(scored) < 2:
        found.none["too_few"] += 1
        return
    ranked = sorted(scored, key=lambda one: (one.score, _drawn(seed, one)))
    worst, best = ranked[0], ranked[-1]
    margin = round((best.score or 0.0) - (worst.score or 0.0), 6)
    if margin <= 0 or margin < min_margin:
        found.none["tie"] += 1
    elif near_equal(best.output, worst.output):
        found.none["near_equal"] += 1
    else:
        found.pairs.append(_pair(best, worst, margin))


def _for_people(candidates: Sequence[Candidate], seed: int, found: _Found) -> None:
    """Disjoint pairs in an order drawn by the seed; which is "chosen" means nothing until a person says so."""
    different: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda one: _drawn(seed, one)):
        if candidate.output.strip() and not any(
            near_equal(candidate.output, one.output) for one in different
        ):
            different.append(candidate)
    if len(different) < 2:
        found.none["near_equal" if len(candidates) > 1 else "too_few"] += 1
    for first, second in zip(different[::2], different[1::2], strict=False):
        found.pairs.append(_pair(first, second, None))


def near_equal(first: str, second: str) -> bool:
    """Whether two answers say the same for all that a learner could see."""
    return normalise_text(first) == normalise_text(second) or jaccard(first, second) >= NEAR_EQUAL


def _pair(chosen: Candidate, rejected: Candidate, margin: float | None) -> NewPair:
    return NewPair(
        uid=pair_uid(chosen.prompt, chosen.output, rejected.output),
        prompt=chosen.prompt,
        chosen=chosen.output,
        rejected=rejected.output,
        margin=margin,
        scorer=chosen.scorer,
        source=chosen.model,
    )


def _drawn(seed: int, candidate: Candidate) -> bytes:
    return hashlib.sha256(f"{seed}\0{candidate.id}".encode()).digest()
