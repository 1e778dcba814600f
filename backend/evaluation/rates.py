"""A rate and how far to trust it. Standard library only: lists and tables want it without a numeric stack."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided interval, in the units of what it is about."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def wilson(passed: int, items: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a rate (Wilson 1927; Brown, Cai, DasGupta 2001, equation 4):
    (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n). 0 to 1 without items.
    Raises ValueError unless 0 <= passed <= items and 0 < confidence < 1."""
    if not 0 <= passed <= items:
        raise ValueError(f"{passed} passed of {items} items: expected 0 <= passed <= items")
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence of {confidence}: expected a number between 0 and 1")
    if items == 0:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = passed / items
    scale = 1 + z * z / items
    middle = (rate + z * z / (2 * items)) / scale
    reach = z * math.sqrt(rate * (1 - rate) / items + z * z / (4 * items * items)) / scale
    # The ends are exact where the rate is: rounding must not print a chance of -0.0 or leave 1 out.
    low = 0.0 if passed == 0 else middle - reach
    high = 1.0 if passed == items else middle + reach
    return Interval(low, high)
