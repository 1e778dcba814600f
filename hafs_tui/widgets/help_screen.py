"""The help: every key of this mode, of the app and of the modes, and why some do nothing now."""

from __future__ import annotations

from textwrap import wrap
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from hafs_tui.actions import MODES, Action, Need, of_group, unmet
from hafs_tui.keymap import Keymap, shown_key

_KEYS_WIDTH = 16

MOVING = (
    ("↑ ↓  j k", "Move the cursor"),
    ("PgUp PgDn", "Move a page"),
    ("Home End  g G", "First and last row"),
    ("Tab  shift+Tab", "Next and previous part of the screen"),
    ("esc", "Close a dialog without doing anything"),
    ("^q", "Quit, from anywhere"),
)


class HelpScreen(ModalScreen[None]):
    """A scrolling page made from the action table and the keymap in force."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,f1", "dismiss", "Close", show=False),
        Binding("j", "scroll('down')", show=False),
        Binding("k", "scroll('up')", show=False),
    ]

    def __init__(self, keymap: Keymap, group: str, holds: set[Need]) -> None:
        super().__init__()
        self._keymap = keymap
        self._group = group
        self._holds = holds

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog wide") as page:
            page.border_title = "Help"
            page.border_subtitle = "esc closes"
            yield Static(self._text())

    def action_scroll(self, direction: str) -> None:
        page = self.query_one(VerticalScroll)
        page.scroll_relative(y=1 if direction == "down" else -1, animate=False)

    def _text(self) -> Content:
        mode = next(mode for mode in MODES if mode.id == self._group)
        parts: list[tuple[str, str]] = [(f"{mode.label}\n", "bold"), (f"{mode.help}\n\n", "")]
        for title, group in (("Keys of this mode", self._group), ("Everywhere", "app")):
            if of_group(group):
                parts.append((f"{title}\n", "bold $primary"))
                parts += [part for action in of_group(group) for part in self._of_action(action)]
                parts.append(("\n", ""))
        parts.append(("Modes\n", "bold $primary"))
        for mode in MODES:
            parts += self._entry(self._keys(f"mode.{mode.id}"), f"{mode.label}: {mode.help}")
        parts.append(("\nMoving\n", "bold $primary"))
        for keys, text in MOVING:
            parts += self._entry(keys, text)
        return Content.assemble(*parts)

    def _keys(self, name: str) -> str:
        return " ".join(shown_key(key) for key in self._keymap.keys[name])

    def _of_action(self, action: Action) -> list[tuple[str, str]]:
        parts = self._entry(self._keys(action.id), f"{action.label}: {action.help}")
        need = unmet(action, self._holds) if action.group != "app" else None
        if need is not None:
            parts += self._entry("", f"Not now: {need.value}.", "$warning")
        return parts

    def _entry(self, keys: str, text: str, style: str = "") -> list[tuple[str, str]]:
        """Keys and a text that wraps under itself."""
        lines = wrap(text, max(20, min(110, self.app.size.width * 9 // 10) - _KEYS_WIDTH - 8))
        return [
            part
            for index, line in enumerate(lines)
            for part in ((f"  {keys if index == 0 else '':<{_KEYS_WIDTH}}", "bold"), (f"{line}\n", style))
        ]
