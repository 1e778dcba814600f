"""Train, validation and test: seeded, stratified by domain, and never parting a family.

The origin split at random, so a sample's variations leaked into the test set. Here a family goes to one
split as a whole, and where it goes depends on the seed and on names only, not on the order of the input.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from backend.datasets.rows import Row
from backend.similarity.exact import exact_hash

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Member:
    """One sample to place: `key` is unique, samples of one `family` stay together."""

    key: str
    family: str
    domain: str


@dataclass(frozen=True, slots=True)
class Fractions:
    """Shares of validation and test, each 0 or more and together under 1; training has the rest."""

    val: float = 0.1
    test: float = 0.1

    def __post_init__(self) -> None:
        if self.val < 0 or self.test < 0 or self.val + self.test >= 1:
            raise ValueError(f"shares of {self.val} and {self.test}: expected 0 or more, together under 1")


def assign_splits(
    members: Iterable[Member], seed: int, fractions: Fractions | None = None
) -> dict[str, SplitName]:
    """The split of each member's key.

    Each domain is divided by itself, to within the size of its largest family. A family that lies in
    several domains counts where most of it lies. Domains with fewer families than there are splits are
    divided together, and a lone family trains. Raises ValueError for a key that comes twice.
    """
    shares = fractions or Fractions()
    families: dict[str, list[Member]] = defaultdict(list)
    seen: set[str] = set()
    for member in members:
        if member.key in seen:
            raise ValueError(f"the key {member.key!r} comes twice")
        seen.add(member.key)
        families[member.family].append(member)
    placed: dict[str, SplitName] = {}
    for stratum in _strata(families):
        sizes = {family: len(families[family]) for family in stratum}
        for family, split in _divide(sizes, seed, shares).items():
            placed.update((member.key, split) for member in families[family])
    return placed


def split_rows(
    rows: Sequence[Row], seed: int, fractions: Fractions | None = None
) -> dict[SplitName, list[Row]]:
    """The rows of each split, in the order given. A row without a family is one with the rows whose
    instruction and input are the same after normalising."""
    members = [Member(str(place), family_of(row), row.domain or "") for place, row in enumerate(rows)]
    placed = assign_splits(members, seed, fractions)
    parted: dict[SplitName, list[Row]] = {name: [] for name in SPLITS}
    for member, row in zip(members, rows, strict=True):
        parted[placed[member.key]].append(row)
    return parted


def family_of(row: Row) -> str:
    """A row's family, or the hash of what it asks."""
    return row.family or exact_hash(row.prompt)


def _strata(families: dict[str, list[Member]]) -> list[list[str]]:
    by_domain: dict[str, list[str]] = defaultdict(list)
    for family, members in families.items():
        counts = Counter(member.domain for member in members)
        by_domain[min(counts, key=lambda domain: (-counts[domain], domain))].append(family)
    large = [by_domain[domain] for domain in sorted(by_domain) if len(by_domain[domain]) >= len(SPLITS)]
    small = [family for stratum in by_domain.values() if len(stratum) < len(SPLITS) for family in stratum]
    return [*large, small]


def _divide(sizes: dict[str, int], seed: int, shares: Fractions) -> dict[str, SplitName]:
    """Place families in an order drawn by the seed, each where the largest part of the plan is still open."""
    total = sum(sizes.values())
    several = len(sizes) >= len(SPLITS)
    plan: dict[SplitName, float] = {"train": 0.0, "val": shares.val * total, "test": shares.test * total}
    for name in ("val", "test"):
        plan[name] = max(1.0, float(round(plan[name]))) if several and plan[name] > 0 else 0.0
    plan["train"] = total - plan["val"] - plan["test"]
    filled = dict.fromkeys(plan, 0)
    placed: dict[str, SplitName] = {}
    for family in sorted(sizes, key=lambda name: _drawn(seed, name)):
        split = _choose(plan, filled, sizes[family])
        filled[split] += sizes[family]
        placed[family] = split
    return placed


def _choose(plan: dict[SplitName, float], filled: dict[SplitName, int], size: int) -> SplitName:
    open_share = {name: (plan[name] - filled[name]) / plan[name] for name in SPLITS if plan[name] > 0}
    fitting = [name for name in open_share if plan[name] - filled[name] >= size]
    if fitting:
        return max(fitting, key=lambda name: open_share[name])
    return max(open_share, key=lambda name: plan[name] - filled[name])


def _drawn(seed: int, family: str) -> tuple[bytes, str]:
    return hashlib.sha256(f"{seed}\0{family}".encode("utf-8", "surrogatepass")).digest(), family
