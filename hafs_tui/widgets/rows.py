"""Rows of columns, drawn line by line: what long lists and small tables have in common.

A `RowView` knows how many rows there are, which one has the cursor, and how to paint one from its cells. A
subclass says what the cells of a row are. Text comes raw and is sanitized here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size, clamp
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from hafs_tui.sanitize import one_line

Tone = Literal["", "good", "bad", "warning", "muted", "strong", "accent"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column: `width` in terminal cells, or 0 for a share of what is left."""

    title: str
    width: int = 0
    align: Literal["left", "right"] = "left"


@dataclass(frozen=True, slots=True)
class Cell:
    """Text of any origin and a tone for it. The tone is never the only sign: the text says it too."""

    text: str
    tone: Tone = ""


Cells = tuple[Cell, ...]


class RowView(ScrollView, can_focus=True, inherit_bindings=False):
    """A scrolling view over rows, with a cursor and a header line that stays."""

    DEFAULT_CSS = """
    RowView { height: 1fr; background: $background; color: $foreground; overflow-x: hidden; }
    RowView .rows--header { color: $muted; text-style: bold; background: $surface; }
    RowView .rows--cursor { background: $cursor-blurred; color: $foreground; }
    RowView:focus .rows--cursor { background: $cursor; text-style: bold; }
    RowView .rows--good { color: $success; }
    RowView .rows--bad { color: $error; }
    RowView .rows--warning { color: $warning; }
    RowView .rows--muted { color: $muted; }
    RowView .rows--accent { color: $primary; }
    RowView .rows--strong { text-style: bold; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "rows--header",
        "rows--cursor",
        "rows--good",
        "rows--bad",
        "rows--warning",
        "rows--muted",
        "rows--accent",
        "rows--strong",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home,g", "first", show=False),
        Binding("end,G", "last", show=False),
    ]

    cursor: reactive[int] = reactive(0, repaint=False)
    """Index of the row under the cursor; 0 where there is no row."""

    class Moved(Message):
        """The cursor stands on another row, or the row under it is another one."""

        def __init__(self, view: RowView, index: int) -> None:
            super().__init__()
            self.view = view
            self.index = index

        @property
        def control(self) -> RowView:
            return self.view

    def __init__(self, columns: Sequence[Column], *, empty: str = "", id: str | None = None) -> None:
        super().__init__(id=id)
        self.columns = tuple(columns)
        self._empty = empty
        self._count = 0

    # What a subclass says

    def cells(self, index: int) -> Cells | None:
        """The cells of a row, or None while they are on their way."""
        raise NotImplementedError

    # Rows

    @property
    def width(self) -> int:
        """Cells of a line: what the scrollbar leaves."""
        return self.scrollable_content_region.width

    @property
    def row_count(self) -> int:
        return self._count

    def set_count(self, count: int) -> None:
        """Tell how many rows there are; the cursor stays where it is as far as there is a row."""
        self._count = count
        self.virtual_size = Size(0, count + 1)
        self.cursor = clamp(self.cursor, 0, max(0, count - 1))
        self.refresh()

    def validate_cursor(self, cursor: int) -> int:
        return clamp(cursor, 0, max(0, self._count - 1))

    def watch_cursor(self, old: int, new: int) -> None:
        self.refresh_row(old)
        self.refresh_row(new)
        self.show_row(new)
        if self._count:
            self.post_message(self.Moved(self, new))

    def refresh_row(self, index: int) -> None:
        """Paint one row again."""
        self.refresh_line(index + 1)

    def show_row(self, index: int) -> None:
        """Scroll just as far as needed to see a row."""
        room = max(1, self.size.height - 1)
        top = self.scroll_offset.y
        if index < top:
            self.scroll_to(y=index, animate=False, force=True)
        elif index >= top + room:
            self.scroll_to(y=index - room + 1, animate=False, force=True)

    def visible_rows(self) -> range:
        """Indices of the rows on the screen."""
        top = self.scroll_offset.y
        return range(min(top, self._count), min(self._count, top + max(0, self.size.height - 1)))

    # Keys and mouse

    def action_move(self, by: int) -> None:
        self.cursor += by

    def action_page(self, by: int) -> None:
        self.cursor += by * max(1, self.size.height - 2)

    def action_first(self) -> None:
        self.cursor = 0

    def action_last(self) -> None:
        self.cursor = self._count - 1

    def on_click(self, event: events.Click) -> None:
        if event.y > 0 and self.scroll_offset.y + event.y - 1 < self._count:
            self.cursor = self.scroll_offset.y + event.y - 1

    def on_resize(self) -> None:
        self.virtual_size = Size(0, self._count + 1)
        self.show_row(self.cursor)

    # Painting

    def render_line(self, y: int) -> Strip:
        width = self.width
        ground = self.rich_style
        if y == 0:
            style = ground + self.get_component_rich_style("rows--header", partial=True)
            header = tuple(Cell(column.title) for column in self.columns)
            return self._paint(header, style, " ").adjust_cell_length(width, style)
        index = self.scroll_offset.y + y - 1
        if index >= self._count:
            text = f" {self._empty}" if self._count == 0 and y == 1 else ""
            return Strip([Segment(text, ground)]).adjust_cell_length(width, ground)
        at_cursor = index == self.cursor
        if at_cursor:
            ground = ground + self.get_component_rich_style("rows--cursor", partial=True)
        cells = self.cells(index)
        if cells is None:
            cells = (Cell("…", "muted"),)
        return self._paint(cells, ground, "▸" if at_cursor else " ").adjust_cell_length(width, ground)

    def _paint(self, cells: Cells, ground: Style, mark: str) -> Strip:
        segments = [Segment(mark, ground)]
        for cell, column, width in zip(cells, self.columns, self._widths(), strict=False):
            text = fit(one_line(cell.text), width, column.align)
            style = ground
            if cell.tone:
                style = ground + self.get_component_rich_style(f"rows--{cell.tone}", partial=True)
            segments += [Segment(text, style), Segment(" ", ground)]
        return Strip(segments)

    def _widths(self) -> list[int]:
        fixed = sum(column.width for column in self.columns) + len(self.columns) + 1
        shares = sum(1 for column in self.columns if not column.width)
        left = max(0, self.width - fixed)
        return [column.width or left // max(1, shares) for column in self.columns]


def fit(text: str, width: int, align: str = "left") -> str:
    """`text` in exactly `width` terminal cells: cut with `…`, or padded on the side away from `align`.

    Wide characters (CJK) count two cells; a cut through one leaves a space.
    """
    # Only so much of a long text can be seen; measuring all of it would cost more than drawing.
    text = text[: width + 1]
    length = cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + "…" if width > 0 else ""
    padding = " " * (width - length)
    return padding + text if align == "right" else text + padding
