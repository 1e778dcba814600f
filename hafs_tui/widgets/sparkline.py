"""A sparkline of one line and one segment: a tenth of the bytes of a coloured one, for eyes over SSH."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

BARS = "▁▂▃▄▅▆▇█"
MISSING = "·"


def spark(values: Sequence[float], width: int, *, low: float | None = None, high: float | None = None) -> str:
    """The last `width` values as bars, right aligned. NaN and infinities show as `·`.

    `low` and `high` fix the scale; without them it spans the finite values shown.
    """
    shown = list(values[-width:]) if width > 0 else []
    finite = [value for value in shown if math.isfinite(value)]
    bottom = low if low is not None else min(finite, default=0.0)
    top = high if high is not None else max(finite, default=1.0)
    span = min(top - bottom, sys.float_info.max) or 1.0  # the ends may be further apart than a float can tell
    bars = []
    for value in shown:
        if math.isfinite(value):
            level = (min(max(value, bottom), top) - bottom) / span
            bars.append(BARS[min(len(BARS) - 1, int(level * len(BARS)))])
        else:
            bars.append(MISSING)
    return "".join(bars).rjust(width)


class Sparkline(Widget):
    """Values as bars on one line."""

    DEFAULT_CSS = "Sparkline { height: 1; color: $primary; }"

    def __init__(self, *, low: float | None = None, high: float | None = None, id: str | None = None) -> None:
        super().__init__(id=id)
        self._values: tuple[float, ...] = ()
        self._low = low
        self._high = high

    def set_values(self, values: Sequence[float]) -> None:
        """Show other values; nothing is written where they are the same."""
        if tuple(values) != self._values:
            self._values = tuple(values)
            self.refresh()

    def render_line(self, y: int) -> Strip:
        text = spark(self._values, self.size.width, low=self._low, high=self._high) if y == 0 else ""
        return Strip([Segment(text, self.rich_style)]).adjust_cell_length(self.size.width, self.rich_style)
