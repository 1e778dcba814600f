"""The top line (modes) and the bottom line (keys of this screen), one segment list each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from hafs_tui.actions import MODES


class TitleBar(Widget):
    """The modes with their keys; the one that is open is bracketed, so that colour is not the only sign."""

    DEFAULT_CSS = """
    TitleBar { dock: top; height: 1; background: $panel; color: $muted; }
    TitleBar .bar--open { color: $foreground; background: $cursor; text-style: bold; }
    TitleBar .bar--key { color: $primary; background: $panel; }
    """
    COMPONENT_CLASSES = {"bar--open", "bar--key"}  # noqa: RUF012

    @dataclass
    class Chosen(Message):
        """A mode was clicked."""

        mode: str

    def __init__(self, mode: str, keys: Sequence[str]) -> None:
        super().__init__()
        self._mode = mode
        self._keys = keys
        self._starts: list[tuple[int, str]] = []

    def render_line(self, y: int) -> Strip:
        """One line: `1 Overview [2 Campaigns] 3 Review ...`, with short names where they do not all fit."""
        width = self.size.width
        labels = [mode.label for mode in MODES]
        if sum(len(label) + 4 for label in labels) > width:
            labels = [mode.short for mode in MODES]
        segments: list[Segment] = []
        self._starts = []
        ground, key_style = self.rich_style, self.get_component_rich_style("bar--key")
        open_style = self.get_component_rich_style("bar--open")
        at = 0
        for mode, key, label in zip(MODES, self._keys, labels, strict=True):
            self._starts.append((at, mode.id))
            if mode.id == self._mode:
                segments.append(Segment(f"[{key} {label}]", open_style))
            else:
                segments += [Segment(f" {key}", key_style), Segment(f" {label} ", ground)]
            at += len(key) + len(label) + 3
        return Strip(segments).adjust_cell_length(width, ground)

    def on_click(self, event: events.Click) -> None:
        for start, mode in reversed(self._starts):
            if event.x >= start:
                self.post_message(self.Chosen(mode))
                return


@dataclass(frozen=True, slots=True)
class KeyHint:
    """A key and what it does; `possible` says whether it does anything now."""

    key: str
    label: str
    possible: bool = True


class KeyBar(Widget):
    """The keys of this screen. What is not possible now is dim and in parentheses."""

    DEFAULT_CSS = """
    KeyBar { dock: bottom; height: 1; background: $panel; color: $foreground; }
    KeyBar .bar--key { color: $primary; background: $panel; text-style: bold; }
    KeyBar .bar--off { color: $muted; background: $panel; }
    """
    COMPONENT_CLASSES = {"bar--key", "bar--off"}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self._hints: tuple[KeyHint, ...] = ()
        self._last: tuple[KeyHint, ...] = ()

    def set_hints(self, hints: Sequence[KeyHint], last: Sequence[KeyHint]) -> None:
        """Show `hints` from the left, as many as fit, and `last` always."""
        if (tuple(hints), tuple(last)) != (self._hints, self._last):
            self._hints, self._last = tuple(hints), tuple(last)
            self.refresh()

    def render_line(self, y: int) -> Strip:
        ground = self.rich_style
        room = self.size.width - sum(_length(hint) for hint in self._last)
        segments: list[Segment] = []
        for hint in self._hints:
            room -= _length(hint)
            if room < 0:
                break
            segments += self._segments(hint, ground)
        for hint in self._last:
            segments += self._segments(hint, ground)
        return Strip(segments).adjust_cell_length(self.size.width, ground)

    def _segments(self, hint: KeyHint, ground: Style) -> list[Segment]:
        if not hint.possible:
            return [Segment(f"({hint.key} {hint.label})", self.get_component_rich_style("bar--off"))]
        return [
            Segment(f" {hint.key}", self.get_component_rich_style("bar--key")),
            Segment(f" {hint.label} ", ground),
        ]


def _length(hint: KeyHint) -> int:
    return len(hint.key) + len(hint.label) + 3
