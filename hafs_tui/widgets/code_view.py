"""A scrolling view of texts that we did not write: titled blocks, wrapped, coloured where they are code.

It is drawn line by line, so that the next sample of a review is there within a frame however long it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from hafs_tui.lexer import Piece, colour
from hafs_tui.sanitize import one_line, sanitize

_TAB = "    "
# What one block shows at most; the stored text is whole, and nobody reads on a screen further than this.
LONGEST = 200_000


@dataclass(frozen=True, slots=True)
class Block:
    """A title of ours or of others and a text; `code` asks for colours."""

    title: str
    text: str
    code: bool = True


class CodeView(ScrollView, can_focus=True):
    """Shows blocks one under another."""

    DEFAULT_CSS = """
    CodeView { height: 1fr; background: $background; color: $foreground; overflow-x: hidden; }
    CodeView .code--title { color: $primary; text-style: bold; }
    CodeView .code--comment { color: $muted; text-style: italic; }
    CodeView .code--string { color: $success; }
    CodeView .code--number { color: $warning; }
    CodeView .code--keyword { color: $primary; text-style: bold; }
    CodeView .code--label { color: $accent; text-style: bold; }
    CodeView .code--directive { color: $accent; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "code--title",
        "code--comment",
        "code--string",
        "code--number",
        "code--keyword",
        "code--label",
        "code--directive",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", show=False),
        Binding("k", "scroll_up", show=False),
        Binding("g", "scroll_home", show=False),
        Binding("G", "scroll_end", show=False),
        Binding("h,left", "scroll_left", show=False),
        Binding("l,right", "scroll_right", show=False),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._blocks: tuple[Block, ...] = ()
        self._lines: list[list[Piece]] = []
        self._wrapped_at = -1
        self._wraps = True

    def toggle_wrap(self) -> None:
        """Break long lines at the view's width, or leave them whole and scroll sideways."""
        self._wraps = not self._wraps
        self._wrapped_at = -1
        self.styles.overflow_x = "hidden" if self._wraps else "auto"
        self._wrap(self.scrollable_content_region.width)
        self.scroll_to(x=0, animate=False)
        self.refresh()

    def set_blocks(self, blocks: Sequence[Block], *, keep_position: bool = False) -> None:
        """Show other blocks, from the top unless `keep_position`."""
        if tuple(blocks) == self._blocks:
            return
        self._blocks = tuple(blocks)
        self._wrapped_at = -1
        self._wrap(self.scrollable_content_region.width)
        if not keep_position:
            self.scroll_to(y=0, animate=False)
        self.refresh()

    def on_resize(self) -> None:
        self._wrap(self.scrollable_content_region.width)

    def _wrap(self, width: int) -> None:
        if width <= 2 or width == self._wrapped_at:
            return
        self._wrapped_at = width
        lines: list[list[Piece]] = []
        for block in self._blocks:
            if block.title:
                lines.append([(one_line(block.title), "title")])
            text = sanitize(block.text[:LONGEST]).rstrip("\n").expandtabs(len(_TAB))
            pieces = colour(text) if block.code else [[(line, "")] for line in text.split("\n")]
            for line in pieces:
                lines += wrap(line, width - 2) if self._wraps else [list(line)]
            if len(block.text) > LONGEST:
                lines.append([(f"… {len(block.text) - LONGEST:,} more characters", "comment")])
            lines.append([])
        self._lines = lines
        longest = (
            0 if self._wraps else max((sum(cell_len(text) for text, _ in line) for line in lines), default=0)
        )
        self.virtual_size = Size(longest + 2 if longest else 0, len(lines))

    def render_line(self, y: int) -> Strip:
        width, ground = self.scrollable_content_region.width, self.rich_style
        index = self.scroll_offset.y + y
        if index >= len(self._lines):
            return Strip.blank(width, ground)
        segments = [Segment(" ", ground)]
        for text, name in self._lines[index]:
            style = ground
            if name:
                style = ground + self.get_component_rich_style(f"code--{name}", partial=True)
            segments.append(Segment(text, style))
        strip = Strip(segments)
        if not self._wraps:
            strip = strip.crop(self.scroll_offset.x, self.scroll_offset.x + width)
        return strip.adjust_cell_length(width, ground)


def wrap(line: Sequence[Piece], width: int) -> list[list[Piece]]:
    """A coloured line as lines of at most `width` cells, broken at spaces where there are some."""
    text = "".join(piece for piece, _ in line)
    if len(text) <= width and text.isascii():
        return [list(line)]
    lines: list[list[Piece]] = []
    start = 0
    for end in breaks(text, width):
        lines.append(_part(line, start, end))
        start = end
    return lines or [[]]


def breaks(text: str, width: int) -> list[int]:
    """Where to end the wrapped lines of `text`: indices up to and including its length."""
    ends: list[int] = []
    start, cells, last_space = 0, 0, -1
    for index, character in enumerate(text):
        size = cell_len(character)
        if cells + size > width and index > start:
            end = last_space + 1 if last_space >= start else index
            ends.append(end)
            start, last_space = end, -1
            cells = cell_len(text[start:index])
        cells += size
        if character == " ":
            last_space = index
    ends.append(len(text))
    return ends


def _part(line: Sequence[Piece], start: int, end: int) -> list[Piece]:
    part: list[Piece] = []
    at = 0
    for text, name in line:
        first, last = max(start - at, 0), min(end - at, len(text))
        if first < last:
            part.append((text[first:last], name))
        at += len(text)
    return part
