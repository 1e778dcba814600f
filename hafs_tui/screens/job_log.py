"""The log of a job in a window of its own, followed while the job runs."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen

from backend.hosts.jobs import follow_job
from hafs_tui.sanitize import one_line, plain
from hafs_tui.widgets.log_view import LogView

if TYPE_CHECKING:
    from hafs_tui.app import HafsApp


class JobLog(ModalScreen[None]):
    """Shows what a job wrote to its output, from its first byte to its end. Leaving stops nothing but the view."""

    DEFAULT_CSS = "JobLog LogView { background: $surface; }"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,l", "dismiss", "Close", show=False)]

    def __init__(self, job_id: str) -> None:
        super().__init__()
        self._job_id = job_id

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide") as box:
            box.border_title = plain(f"Log of {one_line(self._job_id)}").markup
            box.border_subtitle = "esc closes · g G first, last"
            yield LogView(empty="Waiting for the first line …")

    def on_mount(self) -> None:
        self.run_worker(self._follow())

    async def _follow(self) -> None:
        app, view = cast("HafsApp", self.app), self.query_one(LogView)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        begun = ""

        def show(data: bytes) -> None:
            nonlocal begun
            *lines, begun = (begun + decoder.decode(data)).split("\n")
            view.append(lines)

        done = await app.guarded(follow_job(app.ws, self._job_id, show))
        if done is not None:
            ended = f"— the job is {done.value.state}"
            code = done.value.exit_code
            view.append(
                [*([begun] if begun else []), ended + (f", exit code {code}" if code is not None else "")]
            )
