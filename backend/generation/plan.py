"""The plan of a campaign: which seed each ordinal of a domain asks about, the same after every restart."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from backend.generation.domains import Domain, Seed
from backend.providers.base import ChatRequest
from backend.store.campaigns import Campaign


def split_target(
    target: int, domains: list[str], weights: Mapping[str, float] | None = None
) -> dict[str, int]:
    """`target` divided over the domains by their weights (1 where none is given), at least one each. What does
    not divide goes one each to the largest remainders, the last first among equals, so that the first domain
    of the request's campaigns shows its 16 of 100 and 33 of 200, and the sum is the target.

    Raises ValueError without domains, with fewer samples than domains, or for a weight that is not above 0.
    """
    if not domains or target < len(domains):
        raise ValueError(f"a target of {target} cannot be divided over {len(domains)} domains")
    weight = {name: Fraction((weights or {}).get(name, 1)) for name in domains}
    if min(weight.values()) <= 0:
        raise ValueError("a domain's weight must be above 0")
    whole = sum(weight.values())
    exact = {name: max(Fraction(1), target * weight[name] / whole) for name in domains}
    shares = {name: int(exact[name]) for name in domains}
    by_rest = sorted(
        range(len(domains)), key=lambda i: (exact[domains[i]] - shares[domains[i]], i), reverse=True
    )
    for i in by_rest[: max(0, target - sum(shares.values()))]:
        shares[domains[i]] += 1
    while sum(shares.values()) > target:  # some were lifted to their one: the largest gives
        shares[max(domains, key=lambda name: shares[name])] -= 1
    return shares


@dataclass(frozen=True, slots=True)
class Question:
    """One planned request: `key` is its content key, equal only for this campaign, place and wording."""

    domain: Domain
    ordinal: int
    seed: Seed
    request: ChatRequest
    key: str


def ordinals(domain: Domain) -> int:
    """How many questions a campaign can ask in this domain before its seeds are used up."""
    return len(domain.seeds) * domain.rounds


@lru_cache(maxsize=64)
def _order(draw: str, count: int) -> tuple[int, ...]:
    order = list(range(count))
    random.Random(draw).shuffle(order)  # noqa: S311
    return tuple(order)


def question(campaign: Campaign, domain: Domain, ordinal: int) -> Question:
    """The question at `ordinal` (from 0, below `ordinals`). Each round asks every seed once, in an order
    drawn from the campaign's seed.

    Raises SettingsError when a template cannot be filled.
    """
    round_number, place = divmod(ordinal, len(domain.seeds))
    order = _order(f"{campaign.seed}/{domain.name}/{round_number}", len(domain.seeds))
    seed = domain.seeds[order[place]]
    draw = (campaign.seed * 100_003 + ordinal) % 2**31  # what the narrowest provider takes (Gemini: int32)
    request = domain.request(seed, campaign.model, campaign.temperature, campaign.max_tokens, draw)
    identity = f"{campaign.name}\n{domain.name}\n{ordinal}\n{request.key(campaign.provider)}"
    return Question(domain, ordinal, seed, request, hashlib.sha256(identity.encode()).hexdigest())
