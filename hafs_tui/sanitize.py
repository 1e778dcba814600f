"""The one gate between text that we did not write and the terminal.

Model output, logs, file names and host banners can carry escape sequences that write the clipboard,
bidirectional controls that show code in another order than it runs, and invisible characters that hide
instructions. Stored data stays raw; what is shown passes `sanitize` (or `plain`, `one_line`), which turns
each such character into a glyph that can be seen. `ControlFilter` is the second wall: it looks at every
segment of every widget just before it is written, for the text that somebody forgot to sanitize.
"""

from __future__ import annotations

from rich.segment import Segment
from textual.color import Color
from textual.content import Content
from textual.filter import LineFilter

from hafs_tui.glyphs import WALL, one_line, sanitize

__all__ = ["ControlFilter", "one_line", "plain", "sanitize"]


def plain(text: str) -> Content:
    """Sanitized text as plain content: square brackets in it are square brackets, never markup."""
    return Content(sanitize(text))


class ControlFilter(LineFilter):
    """The wall behind `sanitize`: no segment of any widget carries a control character out."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The segments, unchanged when they are clean (nearly always).

        `background` is part of the interface of line filters and plays no role here.
        """
        if all(segment.text.isascii() and segment.text.isprintable() for segment in segments):
            return segments
        return [Segment(text.translate(WALL), style, control) for text, style, control in segments]
