"""How sure a difference is: rates with intervals, paired tests that respect families, and a verdict.

Items of one family (variations of one question) are not independent evidence, so every test here counts
families: they are what is resampled and what changes sign. Where each family has one item and scores are
pass or fail, the test is exactly McNemar's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from backend.evaluation.rates import Interval as Interval
from backend.evaluation.rates import wilson as wilson

VerdictName = Literal["better", "worse", "cannot_tell"]
Floats = NDArray[np.float64]

RESAMPLES = 10_000
# Beyond these sizes the exact distributions agree with the normal one to more digits than are printed.
_MOST_KINDS = 2_000
_MOST_EXACT = 20_000
_MOST_FLIPPED = 5_000
_CHUNK = 4_000_000
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Paired:
    """Two models' scores on the same items: `differences` (n,) is finetuned minus baseline in item order;
    `sums` and `sizes` (families,) are their total and their number for each family. Differences lie in
    -1 to 1."""

    differences: Floats
    sums: Floats
    sizes: Floats

    @property
    def mean(self) -> float:
        """The mean difference over items; 0 without items."""
        return float(self.differences.mean()) if self.differences.size else 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a comparison says. `difference` and `interval` are of the mean score (0 to 1), `p_value` is two-sided.
    `items_needed`: about how many more items would tell, None where the verdict is given or nothing can be
    planned; `reason` says in words what decided."""

    verdict: VerdictName
    items_needed: int | None
    difference: float
    interval: Interval
    p_value: float
    items: int
    families: int
    reason: str


def mcnemar_exact(gained: int, lost: int) -> float:
    """The two-sided exact McNemar test (McNemar 1947; the conditional binomial form): of the items on which
    two models differ, is the share that was gained other than half? 1 where they differ on none."""
    from scipy.stats import binomtest  # a second to import: only where a test is really made

    discordant = gained + lost
    return float(binomtest(gained, discordant, 0.5).pvalue) if discordant else 1.0


def pair(baseline: Sequence[float], finetuned: Sequence[float], families: Sequence[str]) -> Paired:
    """Two models' scores (0 to 1) on the same items in the same order, and each item's family.
    Raises ValueError for different lengths or scores outside 0 to 1."""
    if not len(baseline) == len(finetuned) == len(families):
        lengths = f"{len(baseline)}, {len(finetuned)} and {len(families)}"
        raise ValueError(
            f"baseline, finetuned and families have {lengths} entries: they must be of the same items"
        )
    before, after = np.asarray(baseline, dtype=np.float64), np.asarray(finetuned, dtype=np.float64)
    for scores in (before, after):
        if not np.all((scores >= 0) & (scores <= 1)):
            raise ValueError("a score outside 0 to 1, or no number")
    numbers: dict[str, int] = {}
    family = np.fromiter(
        (numbers.setdefault(name, len(numbers)) for name in families), np.intp, len(families)
    )
    differences = after - before
    count = len(numbers)
    return Paired(
        differences,
        np.bincount(family, weights=differences, minlength=count).astype(np.float64),
        np.bincount(family, minlength=count).astype(np.float64),
    )


def sign_flip_p(paired: Paired, *, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Two-sided p of no difference, by changing the sign of whole families (Fisher's randomisation test; Good,
    "Permutation, Parametric and Bootstrap Tests", 3.2).

    If the two models are the same, which of them scored which answer is chance, family by family, so the
    family sums may change sign. Pass/fail with one item a family: exact McNemar. Whole-numbered sums: exact,
    by convolution. Else `resamples` drawn sign patterns (p is at least 1 / (resamples + 1)), and the normal
    limit beyond 5,000 families.
    """
    sums = paired.sums[np.abs(paired.sums) > 1e-12]
    if not sums.size:
        return 1.0
    magnitudes, counts = np.unique(np.abs(sums), return_counts=True)
    if magnitudes.size == 1:
        return mcnemar_exact(int((sums > 0).sum()), int((sums < 0).sum()))
    observed = abs(float(sums.sum()))
    if np.all(magnitudes == np.round(magnitudes)) and float(magnitudes @ counts) <= _MOST_EXACT:
        return _exact_flip_p(magnitudes.astype(int), counts, observed)
    if sums.size > _MOST_FLIPPED:
        return math.erfc(observed / math.sqrt(2 * float(sums @ sums)))
    rng = np.random.default_rng(seed)
    as_large = 0
    step = max(1, _CHUNK // sums.size)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        signs = rng.integers(0, 2, (rows, sums.size), dtype=np.int8) * 2.0 - 1.0
        as_large += int((np.abs(signs @ sums) >= observed - 1e-9).sum())
    return (1 + as_large) / (1 + resamples)


def _exact_flip_p(magnitudes: NDArray[Any], counts: NDArray[Any], observed: float) -> float:
    """P(|sum of +-magnitudes| >= observed): each magnitude's part is a scaled binomial, and parts add up."""
    from scipy.stats import binom

    chances: Floats = np.ones(1)
    for magnitude, count in zip(magnitudes, counts, strict=True):
        part = np.zeros(2 * magnitude * count + 1)
        part[:: 2 * magnitude] = binom.pmf(np.arange(count + 1), count, 0.5)
        chances = np.convolve(chances, part)
    reach = chances.size // 2
    totals = np.abs(np.arange(-reach, reach + 1))
    return min(1.0, float(chances[totals >= observed - 0.5].sum()))


def cluster_bootstrap(
    paired: Paired, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The BCa interval of the mean difference when families are drawn with replacement (Efron 1987; clusters
    as in Miller, arXiv 2411.00640).

    Families with the same sum and size are one kind, and drawing families is drawing how often each kind
    comes (a multinomial): the same distribution at a fraction of the work. Beyond 2,000 kinds the clustered
    standard error and the normal limit take its place. Where no two families differ the data say
    nothing about their spread, and the interval allows for the share of families, by Wilson's bound, that
    may be of another kind without having been seen. -1 to 1 without items, or with one family.
    """
    families = paired.sums.size
    if families < 2:
        return Interval(-1.0, 1.0)
    kinds, counts = np.unique(np.column_stack([paired.sums, paired.sizes]), axis=0, return_counts=True)
    sums, sizes = kinds[:, 0], kinds[:, 1]
    mean = paired.mean
    if np.ptp(sums / sizes) < 1e-12:
        unseen = 1 - wilson(families, families, confidence).low
        return Interval(mean - unseen * (mean + 1), mean + unseen * (1 - mean))
    tail = (1 - confidence) / 2
    if sums.size > _MOST_KINDS:
        reach = _NORMAL.inv_cdf(1 - tail) * clustered_error(paired)
        return Interval(max(-1.0, mean - reach), min(1.0, mean + reach))
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, _CHUNK // sums.size)
    for start in range(0, resamples, step):
        drawn = rng.multinomial(families, counts / families, size=min(step, resamples - start))
        means[start : start + step] = (drawn @ sums) / (drawn @ sizes)
    below = (
        np.count_nonzero(means < mean - 1e-12) + 0.5 * np.count_nonzero(np.abs(means - mean) <= 1e-12)
    ) / resamples
    bias = _NORMAL.inv_cdf(min(max(below, 1 / (resamples + 1)), resamples / (resamples + 1)))
    without = (paired.sums.sum() - sums) / (paired.sizes.sum() - sizes)
    spread = float(counts @ without) / families - without
    skew = float(counts @ spread**3) / (6 * float(counts @ spread**2) ** 1.5)
    edges = [_bca_level(_NORMAL.inv_cdf(level), bias, skew) for level in (tail, 1 - tail)]
    low, high = np.quantile(means, edges)
    return Interval(float(low), float(high))


def _bca_level(z: float, bias: float, skew: float) -> float:
    """Efron 1987, equation 2.3: the percentile that stands in for the one at `z`."""
    shifted = bias + z
    return _NORMAL.cdf(bias + shifted / max(1e-9, 1 - skew * shifted))


def clustered_error(paired: Paired) -> float:
    """The standard error of the mean difference with families as clusters (Miller, arXiv 2411.00640, 2.2)."""
    residuals = paired.sums - paired.mean * paired.sizes
    return math.sqrt(float(residuals @ residuals)) / paired.differences.size


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Holm 1979), in the order given: what is under alpha afterwards is
    significant with a family-wise error of at most alpha."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def pairs_for_power(discordance: float, difference: float, *, power: float = 0.8, alpha: float = 0.05) -> int:
    """How many paired items give `power` to find a mean `difference` (Connor 1987, Biometrics 43:207, eq. 3):
    n = (z_alpha/2 sqrt(psi) + z_beta sqrt(psi - d^2))^2 / d^2.

    `discordance` psi is the share of items on which two models differ; for scores that are not pass or fail
    it is the mean squared difference, which is the same thing for those that are. At least as many as an
    exact test needs to be able to reach `alpha` at all. Raises ValueError unless d^2 <= psi <= 1, d != 0.
    """
    if difference == 0 or not difference**2 <= discordance + 1e-12 <= 1 + 2e-12:
        raise ValueError(f"no plan for a difference of {difference} at a discordance of {discordance}")
    null = _NORMAL.inv_cdf(1 - alpha / 2) * math.sqrt(discordance)
    alternative = _NORMAL.inv_cdf(power) * math.sqrt(max(0.0, discordance - difference**2))
    fewest_discordant = math.ceil(1 - math.log2(alpha))
    return max(
        math.ceil((null + alternative) ** 2 / difference**2), math.ceil(fewest_discordant / discordance)
    )


def items_needed(
    paired: Paired, *, power: float = 0.8, alpha: float = 0.05, smallest: float = 0.05
) -> int | None:
    """About how many more items of this kind would give `power`, at the discordance that was seen.

    Planned for the difference that was seen, or for `smallest` where that is larger and not yet planned for:
    nobody wants to be told how many items would prove a tenth of a point. Families make items worth less
    (the design effect: Kish 1965, 5.4); that too is taken as seen. None where nothing can be planned: no item
    tells the models apart, or there are items enough for `smallest` and what was seen would need ten times as
    many.
    """
    count = paired.differences.size
    discordance = float(np.mean(paired.differences**2)) if count else 0.0
    if discordance == 0:
        return None
    seen = abs(paired.mean)
    for difference in (max(seen, smallest), seen):
        if difference < 1e-9:
            return None
        spread = min(1.0, max(discordance, difference**2))
        wanted = pairs_for_power(spread, difference, power=power, alpha=alpha)
        more = math.ceil(wanted * design_effect(paired)) - count
        if more > 0:
            return more if difference >= smallest or more <= 10 * count else None
    return 1


def design_effect(paired: Paired) -> float:
    """By what factor families widen the variance of the mean, at least 1 (Kish 1965, 5.4)."""
    residuals = paired.differences - paired.mean
    alone = float(residuals @ residuals)
    if alone < 1e-12:
        return 1.0
    return max(1.0, clustered_error(paired) ** 2 * paired.differences.size**2 / alone)


def judge(
    paired: Paired,
    *,
    p_value: float | None = None,
    alpha: float = 0.05,
    power: float = 0.8,
    smallest: float = 0.05,
    seed: int = 0,
) -> Verdict:
    """Better, worse, or can't tell, for paired scores.

    A verdict is given where the sign-flip p is under `alpha` and the bootstrap interval leaves out 0. Give
    `p_value` to put an adjusted one (`holm`) in the place of the test's own.
    """
    count, families = paired.differences.size, paired.sums.size
    p = sign_flip_p(paired, seed=seed) if p_value is None else p_value
    interval = cluster_bootstrap(paired, confidence=1 - alpha, seed=seed)
    difference = paired.mean
    name: VerdictName = "cannot_tell"
    needed: int | None = None
    if p < alpha and 0.0 not in interval:
        name = "better" if difference > 0 else "worse"
        reason = "the paired test and the interval both leave out no difference"
    else:
        needed = items_needed(paired, power=power, alpha=alpha, smallest=smallest)
        reason = _why_not(paired, needed, smallest)
    return Verdict(name, needed, difference, interval, p, count, families, reason)


def _why_not(paired: Paired, needed: int | None, smallest: float) -> str:
    if not paired.differences.size:
        return "no item was answered by both"
    if not np.any(paired.differences):
        return "no item tells them apart: their scores are the same on all"
    if needed is None:
        return f"enough items for a difference of {smallest * 100:g} points, and what was seen is far smaller"
    return "the difference could be chance"


def verdict(
    baseline: Sequence[float],
    finetuned: Sequence[float],
    families: Sequence[str],
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    smallest: float = 0.05,
    seed: int = 0,
) -> Verdict:
    """`judge` for two models' scores (0 to 1) on the same items in the same order, with their families."""
    paired = pair(baseline, finetuned, families)
    return judge(paired, alpha=alpha, power=power, smallest=smallest, seed=seed)
