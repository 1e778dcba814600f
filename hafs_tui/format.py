"""Figures as people read them: short, with their unit, and `-` for what is not known."""

from __future__ import annotations

import math
import time

UNKNOWN = "-"


def duration(seconds: float | None) -> str:
    """`8 s`, `12 min`, `3 h 20 min`, `4 d 2 h`."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86_400
    if minutes < 60:
        return f"{minutes} min"
    if hours < 24:
        return f"{hours} h {minutes % 60} min" if minutes % 60 else f"{hours} h"
    return f"{days} d {hours % 24} h" if hours % 24 else f"{days} d"


def ago(at: float | None) -> str:
    """How long ago a moment (Unix seconds) was."""
    return UNKNOWN if at is None else f"{duration(time.time() - at)} ago"


def count(number: int | None) -> str:
    """`12,345`."""
    return UNKNOWN if number is None else f"{number:,}"


def money(usd: float | None) -> str:
    """Dollars, with enough digits to see the cost of one request."""
    if usd is None:
        return UNKNOWN
    return f"${usd:,.2f}" if usd >= 1 or usd == 0 else f"${usd:.4f}"


def percent(share: float | None) -> str:
    """A share from 0 to 1 as per cent."""
    return UNKNOWN if share is None or not math.isfinite(share) else f"{100 * share:.0f} %"


def number(value: float | None, digits: int = 4) -> str:
    """A figure in `digits` significant digits."""
    if value is None:
        return UNKNOWN
    return f"{value:.{digits}g}" if math.isfinite(value) else "not a number"


def per_minute(per_second: float | None) -> str:
    """A rate in `n/min`."""
    if per_second is None:
        return UNKNOWN
    rate = per_second * 60
    return f"{rate:,.0f}/min" if rate >= 100 else f"{rate:.3g}/min"


def of(part: float | None, whole: float | None) -> float | None:
    """The share of `part` in `whole`, None where that cannot be said."""
    return part / whole if part is not None and whole else None


def gib(mebibytes: float | None) -> str:
    """Memory in GiB."""
    return UNKNOWN if mebibytes is None else f"{mebibytes / 1024:.1f}"


def size(count_bytes: int | None) -> str:
    """A size of a file: `12 B`, `3.4 MiB`."""
    if count_bytes is None:
        return UNKNOWN
    value = float(count_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
