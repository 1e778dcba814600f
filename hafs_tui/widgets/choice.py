"""One of a few things, by one key: a rating, a reason. Being a dialog, its digits open no mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalGroup
from textual.screen import ModalScreen
from textual.widgets import Static

from hafs_tui.sanitize import one_line, plain


class Choice(ModalScreen[str | None]):
    """Gives back the key of what was chosen, None where nothing was.

    `title` is ours; `choices` are (key, label), whose labels may hold text of any origin, as
    may `about`.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Leave", show=False)]

    def __init__(self, title: str, choices: Sequence[tuple[str, str]], *, about: str = "") -> None:
        super().__init__()
        self._title = title
        self._choices = tuple(choices)
        self._about = about

    def compose(self) -> ComposeResult:
        with VerticalGroup(classes="dialog") as box:
            box.border_title = self._title
            box.border_subtitle = "esc leaves it"
            if self._about:
                yield Static(plain(self._about))
            for key, label in self._choices:
                yield Static(plain(f"{key}  {one_line(label)}"))

    def on_key(self, event: events.Key) -> None:
        if event.character in {key for key, _ in self._choices}:
            event.stop()
            self.dismiss(event.character)
