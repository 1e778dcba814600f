"""The tail of a log: lines are appended, old ones fall off, and the view follows while it stands at the end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from hafs_tui.sanitize import one_line

KEPT = 10_000
LONGEST = 2_000


class LogView(ScrollView, can_focus=True):
    """The last `KEPT` lines; text is raw and is sanitized here."""

    DEFAULT_CSS = "LogView { height: 1fr; background: $background; color: $foreground; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", show=False),
        Binding("k", "scroll_up", show=False),
        Binding("g", "scroll_home", show=False),
        Binding("G", "scroll_end", show=False),
    ]

    def __init__(self, *, empty: str = "Nothing was logged yet.", id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines: deque[str] = deque(maxlen=KEPT)
        self._empty = empty
        self._widest = 0

    @property
    def line_count(self) -> int:
        return len(self._lines)

    def append(self, lines: Iterable[str]) -> None:
        """Add lines at the end."""
        at_end = self.scroll_offset.y >= len(self._lines) - self.scrollable_content_region.height
        for line in lines:
            text = one_line(line.rstrip("\r\n")[:LONGEST].expandtabs(4))
            self._widest = max(self._widest, cell_len(text))
            self._lines.append(text)
        self.virtual_size = Size(self._widest, len(self._lines))
        if at_end:
            self.scroll_end(animate=False, immediate=True, force=True)
        self.refresh()

    def clear(self) -> None:
        """Forget all lines."""
        self._lines.clear()
        self._widest = 0
        self.virtual_size = Size(0, 0)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width, ground = self.scrollable_content_region.width, self.rich_style
        left, index = self.scroll_offset.x, self.scroll_offset.y + y
        text = self._empty if not self._lines and y == 0 else ""
        if index < len(self._lines):
            text = self._lines[index]
        return Strip([Segment(text, ground)]).crop_extend(left, left + width, ground)
