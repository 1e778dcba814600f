"""A bar with its figure on one line: progress towards a target, or how full something is."""

from __future__ import annotations

import math

from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from hafs_tui.sanitize import one_line
from hafs_tui.widgets.rows import fit

PARTS = " ▏▎▍▌▋▊▉"


def bar(share: float, width: int) -> str:
    """`share` (0 to 1, clamped; NaN is empty) as a bar of exactly `width` cells, in eighths."""
    if width <= 0:
        return ""
    filled = 0.0 if math.isnan(share) else min(1.0, max(0.0, share)) * width
    whole = int(filled)
    text = "█" * whole
    if whole < width:
        text += PARTS[int((filled - whole) * len(PARTS))]
    return text.ljust(width)


class Gauge(Widget):
    """`label ▕█████     ▏ figure`. The figure says in words what the bar shows."""

    DEFAULT_CSS = """
    Gauge { height: 1; color: $foreground; }
    Gauge .gauge--bar { color: $primary; background: $panel; }
    """
    COMPONENT_CLASSES = {"gauge--bar"}  # noqa: RUF012

    def __init__(self, label: str = "", *, label_width: int = 14, id: str | None = None) -> None:
        super().__init__(id=id)
        self._label = label
        self._label_width = label_width
        self._share = 0.0
        self._figure = ""

    def set_value(self, share: float | None, figure: str, label: str | None = None) -> None:
        """Show a share from 0 to 1 (None where it is unknown) with its figure, and a new label if given."""
        state = (share if share is not None else math.nan, figure, self._label if label is None else label)
        if state != (self._share, self._figure, self._label):
            self._share, self._figure, self._label = state
            self.refresh()

    def render_line(self, y: int) -> Strip:
        width, ground = self.size.width, self.rich_style
        if y > 0:
            return Strip.blank(width, ground)
        figure = one_line(self._figure)
        label_width = min(self._label_width, width // 3)
        bar_width = max(0, width - label_width - len(figure) - 4)
        bar_style = self.get_component_rich_style("gauge--bar")
        return Strip(
            [
                Segment(fit(one_line(self._label), label_width) + " ▕", ground),
                Segment(bar(self._share, bar_width), bar_style),
                Segment(f"▏ {figure}", ground),
            ]
        ).adjust_cell_length(width, ground)
