"""Lines of label and value, in place: the small print of a screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from hafs_tui.sanitize import one_line
from hafs_tui.widgets.rows import Tone, fit


@dataclass(frozen=True, slots=True)
class Fact:
    """A label of ours and a value of any origin; without a label the value has the whole line."""

    label: str
    value: str
    tone: Tone = ""


class Facts(Widget):
    """Facts one under another; those that do not fit are cut off at the end."""

    DEFAULT_CSS = """
    Facts { height: 1fr; color: $foreground; }
    Facts .facts--label { color: $muted; }
    Facts .facts--good { color: $success; }
    Facts .facts--bad { color: $error; }
    Facts .facts--warning { color: $warning; }
    Facts .facts--muted { color: $muted; }
    Facts .facts--accent { color: $primary; }
    Facts .facts--strong { text-style: bold; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "facts--label",
        "facts--good",
        "facts--bad",
        "facts--warning",
        "facts--muted",
        "facts--accent",
        "facts--strong",
    }

    def __init__(self, *, label_width: int = 12, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._label_width = label_width
        self._facts: tuple[Fact, ...] = ()

    def set_facts(self, facts: Sequence[Fact]) -> None:
        """Show other facts, in place."""
        if tuple(facts) != self._facts:
            self._facts = tuple(facts)
            self.refresh()

    def render_line(self, y: int) -> Strip:
        width, ground = self.size.width, self.rich_style
        if y >= len(self._facts):
            return Strip.blank(width, ground)
        fact = self._facts[y]
        style = ground
        if fact.tone:
            style = ground + self.get_component_rich_style(f"facts--{fact.tone}", partial=True)
        segments = []
        room = width
        if fact.label:
            label = ground + self.get_component_rich_style("facts--label", partial=True)
            segments.append(Segment(fit(one_line(fact.label), self._label_width) + " ", label))
            room -= self._label_width + 1
        segments.append(Segment(fit(one_line(fact.value), max(0, room)), style))
        return Strip(segments).adjust_cell_length(width, ground)
