"""Splits part no family, depend on names and the seed only, and come near the shares asked for."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.datasets.rows import Row
from backend.datasets.splits import SPLITS, Fractions, Member, assign_splits, split_rows

MEMBERS = st.lists(st.tuples(st.integers(0, 12), st.sampled_from("abc")), max_size=60).map(
    lambda drawn: [Member(f"k{n}", f"f{family}", domain) for n, (family, domain) in enumerate(drawn)]
)
SHARES = st.builds(Fractions, st.floats(0, 0.4), st.floats(0, 0.4))


@settings(deadline=None)
@given(MEMBERS, st.integers(0, 5), SHARES, st.randoms())
def test_families_stay_together_whatever_the_order(
    members: list[Member], seed: int, shares: Fractions, rng: random.Random
) -> None:
    placed = assign_splits(members, seed, shares)
    assert placed.keys() == {member.key for member in members}
    homes = defaultdict(set)
    for member in members:
        homes[member.family].add(placed[member.key])
    assert all(len(home) == 1 for home in homes.values())
    shuffled = list(members)
    rng.shuffle(shuffled)
    assert assign_splits(shuffled, seed, shares) == placed
    if shares.val == 0:
        assert "val" not in placed.values()
    if shares.test == 0:
        assert "test" not in placed.values()


@settings(deadline=None)
@given(st.lists(st.integers(1, 6), min_size=3, max_size=40), st.integers(0, 5), SHARES)
def test_each_domain_comes_within_a_family_of_its_shares(
    sizes: list[int], seed: int, shares: Fractions
) -> None:
    members = [
        Member(f"{family}-{n}", str(family), "asm") for family, size in enumerate(sizes) for n in range(size)
    ]
    counts = Counter(assign_splits(members, seed, shares).values())
    total = len(members)
    wanted = {"val": shares.val * total, "test": shares.test * total}
    wanted["train"] = total - wanted["val"] - wanted["test"]
    for name in SPLITS:
        assert abs(counts[name] - wanted[name]) <= max(sizes) + 2


def test_every_domain_is_in_every_split_when_it_has_the_families() -> None:
    members = [
        Member(f"{domain}{n}", f"{domain}{n}", domain) for domain in ("asm", "text") for n in range(50)
    ]
    members += [Member(f"rare{n}", f"rare{n}", f"rare{n}") for n in range(20)]
    placed = assign_splits(members, seed=1)
    for domain in ("asm", "text", "rare"):
        counts = Counter(placed[member.key] for member in members if member.key.startswith(domain))
        total = sum(counts.values())
        assert counts == {"train": 0.8 * total, "val": 0.1 * total, "test": 0.1 * total}


def test_another_seed_is_another_split() -> None:
    members = [Member(str(n), str(n), "asm") for n in range(100)]
    assert assign_splits(members, 1) != assign_splits(members, 2)


def test_a_lone_family_trains_and_nothing_is_divided_into_nothing() -> None:
    assert set(assign_splits([Member(str(n), "one", "asm") for n in range(9)], 0).values()) == {"train"}
    assert assign_splits([], 0) == {}


def test_rows_that_ask_the_same_are_a_family() -> None:
    rows = [Row(f"Question {n // 4}", f"answer {n}", domain="asm") for n in range(80)]
    rows[0] = Row("  QUESTION 0", "answer 0", domain="asm")
    parted = split_rows(rows, seed=3)
    asked = {name: {row.instruction.strip().lower() for row in part} for name, part in parted.items()}
    assert not asked["train"] & asked["test"]
    assert not asked["train"] & asked["val"]
    assert {name: len(part) for name, part in parted.items()} == {"train": 64, "val": 8, "test": 8}


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="together under 1"):
        Fractions(0.5, 0.5)
    with pytest.raises(ValueError, match="'k' comes twice"):
        assign_splits([Member("k", "a", "x"), Member("k", "b", "x")], 0)
