"""A line chart with axes, in braille dots: several series, any number of points, drawn again in place.

Points are reduced to the lowest and highest of each column before drawing, so that a spike of one step out
of a hundred thousand is still seen. NaN and infinities are marked on the top edge: a loss that is not a
number is news. Series differ in dash as well as in colour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from hafs_tui.sanitize import one_line
from hafs_tui.widgets.rows import fit

Point = tuple[float, float]

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BRAILLE = 0x2800
_DASHES = ("", "─ ", "· ")
_LEGEND = ("──", "- -", "···")
_AXIS_WIDTH = 9


@dataclass(frozen=True, slots=True)
class Series:
    """A named line: points in the order of x. y may be NaN or infinite."""

    name: str
    points: Sequence[Point]


# The span of a scale, and half its value beside a flat line, must stay finite.
LARGEST = 1e300


@dataclass(frozen=True, slots=True)
class Reduced:
    """What is left of a series for drawing: finite points, and the x of those that were not finite."""

    points: tuple[Point, ...]
    broken: tuple[float, ...]


def reduce_points(points: Sequence[Point], buckets: int) -> Reduced:
    """At most `2 * buckets` points that keep the lowest and the highest of each bucket, and the last.

    Infinite and NaN values, and those too large for a scale (past `LARGEST`), are taken out and told apart, at
    most one for each bucket.
    """
    finite: list[Point] = []
    broken: list[float] = []
    for point in points:
        if abs(point[1]) <= LARGEST:  # not of NaN either
            finite.append(point)
        else:
            broken.append(point[0])
    if len(broken) > buckets:
        step = len(broken) / buckets
        broken = [broken[int(i * step)] for i in range(buckets)]
    if len(finite) <= 2 * buckets:
        return Reduced(tuple(finite), tuple(broken))
    kept: list[Point] = []
    size = len(finite) / buckets
    for bucket in range(buckets):
        part = finite[int(bucket * size) : int((bucket + 1) * size)]
        lowest = min(part, key=lambda point: point[1])
        highest = max(part, key=lambda point: point[1])
        kept += [lowest, highest] if lowest[0] <= highest[0] else [highest, lowest]
    kept[-1] = finite[-1]
    return Reduced(tuple(kept), tuple(broken))


def figure(value: float) -> str:
    """A number for an axis in at most eight characters."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}"
    return f"{value:.1e}"


class Canvas:
    """A grid of braille dots, two columns and four rows to a cell, with one series' colour for each cell."""

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.height = height
        self.masks = [[0] * width for _ in range(height)]
        self.owners = [[-1] * width for _ in range(height)]

    def dot(self, x: int, y: int, owner: int) -> None:
        """Set a dot; outside of the canvas nothing happens."""
        column, row = x // 2, y // 4
        if 0 <= column < self.width and 0 <= row < self.height:
            self.masks[row][column] |= _DOTS[y % 4][x % 2]
            self.owners[row][column] = owner

    def line(self, x0: int, y0: int, x1: int, y1: int, owner: int) -> None:
        """A line of dots (Bresenham), dashed by the number of its owner."""
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        for step in range(steps + 1):
            x = x0 + round((x1 - x0) * step / steps)
            y = y0 + round((y1 - y0) * step / steps)
            if _dash_is_on(owner, x):
                self.dot(x, y, owner)

    def row(self, index: int) -> list[tuple[str, int]]:
        """A row as (text, owner) runs."""
        runs: list[tuple[str, int]] = []
        for mask, owner in zip(self.masks[index], self.owners[index], strict=True):
            glyph = chr(_BRAILLE + mask) if mask else " "
            if runs and runs[-1][1] == owner:
                runs[-1] = (runs[-1][0] + glyph, owner)
            else:
                runs.append((glyph, owner))
        return runs


def _dash_is_on(owner: int, x: int) -> bool:
    kind = owner % len(_DASHES)
    return kind == 0 or (kind == 1 and x % 6 < 4) or (kind == 2 and x % 4 == 0)


class Chart(Widget):
    """Draws series over a common x axis; the y axis spans the finite values."""

    DEFAULT_CSS = """
    Chart { height: 1fr; min-height: 5; color: $foreground; }
    Chart .chart--axis { color: $muted; }
    Chart .chart--0 { color: $primary; }
    Chart .chart--1 { color: $accent; }
    Chart .chart--2 { color: $success; }
    Chart .chart--broken { color: $error; text-style: bold; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "chart--axis",
        "chart--0",
        "chart--1",
        "chart--2",
        "chart--broken",
    }

    def __init__(
        self, *, x_label: str = "step", empty: str = "No points yet.", id: str | None = None
    ) -> None:
        super().__init__(id=id)
        self._series: tuple[Series, ...] = ()
        self._x_label = x_label
        self._empty = empty
        self._lines: list[list[tuple[str, str]]] = []
        self._drawn_for: tuple[int, int] | None = None

    def set_series(self, series: Sequence[Series]) -> None:
        """Show other series, in place."""
        if tuple(series) != self._series:
            self._series = tuple(series)
            self._drawn_for = None
            self.refresh()

    def render_line(self, y: int) -> Strip:
        size = (self.size.width, self.size.height)
        if self._drawn_for != size:
            self._lines = draw(self._series, *size, x_label=self._x_label, empty=self._empty)
            self._drawn_for = size
        ground = self.rich_style
        runs = self._lines[y] if y < len(self._lines) else []
        segments = [Segment(text, self._style(name, ground)) for text, name in runs]
        return Strip(segments).adjust_cell_length(self.size.width, ground)

    def _style(self, name: str, ground: Style) -> Style:
        if not name:
            return ground
        return ground + self.get_component_rich_style(f"chart--{name}", partial=True)


Line = list[tuple[str, str]]


def draw(series: Sequence[Series], width: int, height: int, *, x_label: str, empty: str) -> list[Line]:
    """The chart as lines of (text, style name): legend, rows with y figures, x axis with its figures."""
    columns, rows = width - _AXIS_WIDTH - 1, height - 3
    reduced = [reduce_points(each.points, max(1, 2 * columns)) for each in series]
    points = [point for each in reduced for point in each.points]
    broken = [x for each in reduced for x in each.broken]
    if not points and not broken:
        return [[(f" {empty}", "")]]
    if columns < 8 or rows < 1:
        return [_legend(series, width)]
    xs = [x for x, _ in points] + broken
    ys = [y for _, y in points] or [0.0, 1.0]
    left, right = min(xs), max(xs)
    low, high = _padded(min(ys), max(ys))
    canvas = Canvas(columns, rows)
    across, down = columns * 2 - 1, rows * 4 - 1

    def column_of(x: float) -> int:
        return round((x - left) / ((right - left) or 1.0) * across)

    for owner, each in enumerate(reduced):
        before: tuple[int, int] | None = None
        for x, y in each.points:
            here = (column_of(x), down - round((y - low) / (high - low) * down))
            canvas.line(*(before or here), *here, owner % 3)
            before = here
    lines = [_legend(series, width)]
    marks = {column_of(x) // 2 for x in broken}
    for row in range(rows):
        value = high - (high - low) * row / max(1, rows - 1)
        label = figure(value) if row in (0, rows - 1) or row == rows // 2 else ""
        runs: Line = [(f"{label:>{_AXIS_WIDTH - 1}} ┤" if label else " " * _AXIS_WIDTH + "│", "axis")]
        runs += [(text, str(owner) if owner >= 0 else "") for text, owner in canvas.row(row)]
        lines.append(_mark(runs, marks) if row == 0 and marks else runs)
    lines.append([(" " * _AXIS_WIDTH + "└" + "─" * columns, "axis")])
    start, end = figure(left), f"{x_label} {figure(right)}"
    gap = max(1, columns - len(start) - len(end))
    lines.append([(" " * (_AXIS_WIDTH + 1) + start + " " * gap + end, "axis")])
    return lines


def _padded(low: float, high: float) -> tuple[float, float]:
    if low == high:
        return low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    return low, high


def _legend(series: Sequence[Series], width: int) -> Line:
    line: Line = [(" ", "")]
    for index, each in enumerate(series):
        last = each.points[-1][1] if each.points else math.nan
        value = figure(last) if math.isfinite(last) else "not a number" if each.points else "-"
        line += [(_LEGEND[index % 3], str(index % 3)), (f" {one_line(each.name)} {value}   ", "")]
    text = "".join(part for part, _ in line)
    return line if len(text) <= width else [(fit(text, width), "")]


def _mark(runs: Line, columns: set[int]) -> Line:
    """Put a cross into the cells of a row (after its axis) where a value was not a number."""
    axis, *rest = runs
    marked: Line = [axis]
    at = 0
    for text, name in rest:
        for glyph in text:
            marked.append(("×", "broken") if at in columns else (glyph, name))
            at += 1
    return marked
