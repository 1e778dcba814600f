"""A text that others wrote, in a window to read: a report, shown as it stands and never as markup."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen

from hafs_tui.sanitize import one_line, plain
from hafs_tui.widgets.code_view import Block, CodeView


class Report(ModalScreen[None]):
    """`title` and `text` may be of any origin."""

    DEFAULT_CSS = "Report CodeView { background: $surface; }"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,o", "dismiss", "Close", show=False)]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._title = title
        self._text = text

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide") as box:
            box.border_title = plain(one_line(self._title)).markup
            box.border_subtitle = "esc closes · g G top, end"
            yield CodeView()

    def on_mount(self) -> None:
        view = self.query_one(CodeView)
        view.set_blocks([Block("", self._text, code=False)])
        view.focus()
