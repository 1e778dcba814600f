"""Statistics against published values, scipy, brute force, and their own promises under simulation."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from backend.evaluation.rates import Interval, wilson
from backend.evaluation.statistics import (
    Paired,
    cluster_bootstrap,
    clustered_error,
    design_effect,
    holm,
    items_needed,
    mcnemar_exact,
    pair,
    pairs_for_power,
    sign_flip_p,
    verdict,
)

SCORES = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 5)), max_size=14)


def _alone(differences: list[float]) -> Paired:
    """Items that each are a family, with the given differences."""
    return pair(
        [max(0.0, -one) for one in differences],
        [max(0.0, one) for one in differences],
        [str(place) for place in range(len(differences))],
    )


def _binary(won: int, lost: int, same: int) -> Paired:
    return _alone([1.0] * won + [-1.0] * lost + [0.0] * same)


@pytest.mark.parametrize(
    ("passed", "items", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_newcombes_intervals(passed: int, items: int, low: float, high: float) -> None:
    found = wilson(passed, items)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(1, 200), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_agrees_with_scipy(passed: int, items: int, confidence: float) -> None:
    passed = min(passed, items)
    theirs = stats.binomtest(passed, items).proportion_ci(confidence, method="wilson")
    ours = wilson(passed, items, confidence)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert passed / items in ours


def test_wilson_at_its_edges() -> None:
    assert wilson(0, 0) == Interval(0.0, 1.0)
    with pytest.raises(ValueError, match="3 passed of 2"):
        wilson(3, 2)


def test_mcnemar_by_hand() -> None:
    assert mcnemar_exact(9, 1) == mcnemar_exact(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar_exact(5, 0) == pytest.approx(2 / 2**5)
    assert mcnemar_exact(0, 0) == mcnemar_exact(4, 4) == 1.0


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_with_one_item_a_family_the_test_is_mcnemars(won: int, lost: int, same: int) -> None:
    assert sign_flip_p(_binary(won, lost, same)) == pytest.approx(mcnemar_exact(won, lost))


@settings(deadline=None)
@given(SCORES)
def test_families_are_flipped_as_a_brute_force_flips_them(rows: list[tuple[int, int, int]]) -> None:
    paired = pair([a for a, _, _ in rows], [b for _, b, _ in rows], [str(f) for _, _, f in rows])
    observed = abs(paired.sums.sum())
    flips = list(itertools.product((-1, 1), repeat=paired.sums.size))
    as_large = sum(abs(np.dot(signs, paired.sums)) >= observed - 1e-9 for signs in flips)
    assert sign_flip_p(paired) == pytest.approx(as_large / len(flips))


def test_drawn_flips_agree_with_all_flips() -> None:
    rng = np.random.default_rng(5)
    paired = _alone(list(rng.uniform(-0.6, 1.0, 12)))
    flips = np.array(list(itertools.product((-1, 1), repeat=12)))
    exact = float(np.mean(np.abs(flips @ paired.sums) >= abs(paired.sums.sum()) - 1e-9))
    assert sign_flip_p(paired) == pytest.approx(exact, abs=0.02)
    assert sign_flip_p(paired) == sign_flip_p(paired)


def test_the_normal_limit_agrees_with_the_exact_test() -> None:
    rng = np.random.default_rng(2)
    before, after = rng.integers(0, 2, (2, 60_000))
    families = [str(n // 2) for n in range(60_000)]
    large = pair(before, after, families)
    z = abs(large.sums.sum()) / np.sqrt((large.sums**2).sum())
    assert sign_flip_p(large) == pytest.approx(2 * stats.norm.sf(z), abs=1e-6)
    small = pair(before[:8_000], after[:8_000], families[:8_000])
    z = (abs(small.sums.sum()) - 1) / np.sqrt((small.sums**2).sum())
    assert sign_flip_p(small) == pytest.approx(2 * stats.norm.sf(z), abs=0.01)


def test_the_bootstrap_agrees_with_scipys_bca() -> None:
    rng = np.random.default_rng(1)
    differences = np.clip(rng.exponential(0.3, 60) - 0.1, -1, 1)
    theirs = stats.bootstrap(
        (differences,), np.mean, method="BCa", n_resamples=20_000, rng=np.random.default_rng(9)
    ).confidence_interval
    ours = cluster_bootstrap(_alone(list(differences)))
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.006)


def test_the_bootstrap_draws_families_and_not_items() -> None:
    rng = np.random.default_rng(4)
    family_effect = rng.choice([-1.0, 0.0, 1.0], 30, p=[0.2, 0.4, 0.4])
    differences = list(np.repeat(family_effect, 10))
    before, after = [max(0.0, -d) for d in differences], [max(0.0, d) for d in differences]
    whole = cluster_bootstrap(pair(before, after, [str(n // 10) for n in range(300)]))
    alone = cluster_bootstrap(_alone(list(family_effect)))
    assert (whole.low, whole.high) == pytest.approx((alone.low, alone.high), abs=0.02)
    naive = cluster_bootstrap(_alone(differences))
    assert whole.high - whole.low > 2.5 * (naive.high - naive.low)


def test_many_families_take_the_clustered_error() -> None:
    rng = np.random.default_rng(3)
    differences = rng.uniform(-1, 1, 3_000)
    paired = _alone(list(differences))
    assert clustered_error(paired) == pytest.approx(float(np.std(differences)) / np.sqrt(3_000))
    interval = cluster_bootstrap(paired)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * clustered_error(paired), rel=1e-3)


def test_answers_that_never_vary_are_not_taken_for_certainty() -> None:
    same = cluster_bootstrap(_binary(0, 0, 40))
    assert (same.low, same.high) == pytest.approx((-0.0876, 0.0876), abs=1e-3)
    all_won = cluster_bootstrap(_binary(40, 0, 0))
    assert all_won.high == 1.0
    assert 0.8 < all_won.low < 0.9


@settings(deadline=None)
@given(SCORES, st.integers(0, 3))
def test_the_interval_holds_the_mean_and_the_same_seed_gives_the_same(
    rows: list[tuple[int, int, int]], seed: int
) -> None:
    paired = pair([a for a, _, _ in rows], [b for _, b, _ in rows], [str(f) for _, _, f in rows])
    interval = cluster_bootstrap(paired, resamples=500, seed=seed)
    assert -1.0 <= interval.low <= interval.high <= 1.0
    assert interval.low - 0.02 <= paired.mean <= interval.high + 0.02
    assert cluster_bootstrap(paired, resamples=500, seed=seed) == interval


def test_holm_by_hand_and_in_any_order() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_lies_between_the_bare_and_bonferronis(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for bare, ours in zip(p_values, adjusted, strict=True):
        assert bare <= ours <= min(1.0, bare * len(p_values)) + 1e-12


def _exact_power(items: int, discordance: float, difference: float) -> float:
    """The power of the exact McNemar test, summed over how many items are discordant."""
    share = (discordance + difference) / 2 / discordance
    power = 0.0
    for discordant in range(1, items + 1):
        edge = int(stats.binom.ppf(0.025, discordant, 0.5))
        low = edge if stats.binom.cdf(edge, discordant, 0.5) <= 0.025 else edge - 1
        rejected = stats.binom.cdf(low, discordant, share) + stats.binom.sf(
            discordant - low - 1, discordant, share
        )
        power += stats.binom.pmf(discordant, items, discordance) * rejected
    return float(power)


def test_ten_points_at_thirty_percent_discordance_need_about_235_pairs() -> None:
    assert pairs_for_power(0.3, 0.1) == pytest.approx(235, abs=3)


@pytest.mark.parametrize(("discordance", "difference"), [(0.3, 0.1), (0.5, 0.2), (0.2, 0.15), (0.6, 0.1)])
def test_the_planned_items_give_the_exact_test_about_its_power(discordance: float, difference: float) -> None:
    # Connor's formula is for the uncorrected test; the exact one is a little weaker.
    assert 0.72 <= _exact_power(pairs_for_power(discordance, difference), discordance, difference) <= 0.83


def test_no_plan_is_smaller_than_what_the_test_can_ever_find() -> None:
    assert pairs_for_power(1.0, 1.0) == 6
    assert mcnemar_exact(6, 0) < 0.05 < mcnemar_exact(5, 0)
    with pytest.raises(ValueError, match="no plan"):
        pairs_for_power(0.1, 0.5)


def test_items_needed_shrink_with_the_items_there_are_and_grow_with_families() -> None:
    few, more = _binary(16, 8, 56), _binary(32, 16, 112)
    needed = items_needed(few)
    assert needed is not None
    assert needed == pytest.approx(pairs_for_power(0.3, 0.1) - 80, abs=1)
    assert items_needed(more) == pytest.approx(needed - 80, abs=1)
    differences = [1.0] * 16 + [-1.0] * 8 + [0.0] * 56
    before, after = [max(0.0, -d) for d in differences], [max(0.0, d) for d in differences]
    grouped = pair(before, after, [str(n // 4) for n in range(80)])
    assert design_effect(grouped) > 2
    assert (items_needed(grouped) or 0) > 2 * needed


def test_nothing_is_planned_where_nothing_was_seen() -> None:
    assert items_needed(_binary(0, 0, 100)) is None
    assert items_needed(_binary(1_000, 1_000, 2_000)) is None
    assert items_needed(_binary(5, 5, 90)) is not None


def test_a_better_a_worse_and_an_unclear_model() -> None:
    families = [str(n) for n in range(50)]
    bad, good = [0.0] * 40 + [1.0] * 10, [1.0] * 27 + [0.0] * 13 + [1.0] * 10
    better = verdict(bad, good, families)
    assert (better.verdict, better.items_needed, better.difference) == ("better", None, pytest.approx(0.54))
    assert better.p_value < 1e-6
    assert better.interval.low > 0.3
    worse = verdict(good, bad, families)
    assert (worse.verdict, worse.difference) == ("worse", pytest.approx(-0.54))
    unclear = verdict(bad, [1.0] * 3 + bad[3:], families)
    assert unclear.verdict == "cannot_tell"
    assert unclear.items_needed is not None
    assert 0.0 in unclear.interval or unclear.p_value > 0.05


def test_many_items_of_two_families_are_little_evidence() -> None:
    before, after = [0.0] * 100, [1.0] * 100
    assert verdict(before, after, [str(n % 2) for n in range(100)]).verdict == "cannot_tell"
    assert verdict(before, after, [str(n) for n in range(100)]).verdict == "better"


def test_no_items_and_identical_models_say_so() -> None:
    nothing = verdict([], [], [])
    assert (nothing.verdict, nothing.items_needed, nothing.p_value) == ("cannot_tell", None, 1.0)
    assert nothing.reason == "no item was answered by both"
    same = verdict([1.0, 0.0], [1.0, 0.0], ["a", "b"])
    assert (same.verdict, same.items_needed) == ("cannot_tell", None)
    assert "same on all" in same.reason


def test_scores_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="2, 1 and 2 entries"):
        pair([0, 1], [0], ["a", "b"])
    with pytest.raises(ValueError, match="outside 0 to 1"):
        pair([0.5], [float("nan")], ["a"])


@pytest.mark.parametrize("family_size", [1, 4])
def test_a_model_against_itself_is_called_different_in_five_percent_at_most(family_size: int) -> None:
    rng = np.random.default_rng(11)
    runs, called = 400, 0
    families = [str(n // family_size) for n in range(80)]
    for seed in range(runs):
        # Items of one family are as easy as each other: the dependence that an unclustered test falls for.
        ease = np.repeat(rng.beta(0.7, 0.7, 80 // family_size), family_size)
        before, after = (rng.random((2, 80)) < ease).astype(float)
        called += verdict(before, after, families, seed=seed).verdict != "cannot_tell"
    assert called <= stats.binom.ppf(0.999, runs, 0.05)


def test_a_hundred_thousand_items_take_no_time() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.integers(0, 2, (2, 100_000))
    families = [str(n // 3) for n in range(100_000)]
    started = time.process_time()
    verdict(before, after, families)
    assert time.process_time() - started < 2.0
