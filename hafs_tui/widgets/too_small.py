"""What stands in for everything while the terminal is smaller than 80x24."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.content import Content
from textual.geometry import Size
from textual.screen import ModalScreen
from textual.widgets import Static

WIDTH, HEIGHT = 80, 24


def too_small(size: Size) -> bool:
    """Whether the app does not fit into a terminal of this size (columns, rows)."""
    return size.width < WIDTH or size.height < HEIGHT


class TooSmall(ModalScreen[None]):
    """Says how large the terminal is and must be; goes by itself when it has grown."""

    DEFAULT_CSS = """
    TooSmall { align: center middle; }
    TooSmall Static { width: 1fr; height: auto; text-align: center; }
    """

    def compose(self) -> ComposeResult:
        yield Static(self._message())

    def on_resize(self) -> None:
        self.query_one(Static).update(self._message())

    def _message(self) -> Content:
        size = self.app.size
        return Content(
            f"Terminal {size.width}x{size.height}.\nhafs-tui needs {WIDTH}x{HEIGHT}.\nEnlarge it, or Ctrl+Q."
        )
