"""What the eight mode screens share: bars, keys from the action table, and reading snapshots.

A mode screen says three things: its group in the action table, how to read its snapshot, and how to show
one. Everything else (when to read, which keys are possible, what to say when one is not, how the error of
an action is told) is here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.css.query import NoMatches
from textual.screen import Screen

from backend.settings import SettingsError, Workspace
from backend.store import StoreError
from hafs_tui.actions import MODES, Need, of_group, unmet
from hafs_tui.feed import Changed
from hafs_tui.keymap import action_bindings, action_of
from hafs_tui.widgets.bars import KeyBar, KeyHint, TitleBar

if TYPE_CHECKING:
    from hafs_tui.app import HafsApp

Snapshot = TypeVar("Snapshot")
Result = TypeVar("Result")

# Reading takes at most one part in ten of the time, however large the tables are.
_LEAST_GAP_S = 0.1
_GAP = 9


class ModeScreen(Screen[None], Generic[Snapshot]):
    """A mode of the app. Subclasses set `GROUP` and `BINDINGS = mode_keys(GROUP)`."""

    GROUP: ClassVar[str]
    AUTO_FOCUS = "LineList, Table"

    def __init__(self) -> None:
        super().__init__()
        self.snapshot: Snapshot | None = None
        self._stale = False
        self._reading = False

    # What a subclass fills in

    def body(self) -> ComposeResult:
        """The widgets between the bars."""
        raise NotImplementedError

    async def read(self) -> Snapshot:
        """Read what this screen shows from the database; runs in a worker."""
        raise NotImplementedError

    def show(self, snapshot: Snapshot) -> None:
        """Update the widgets in place from `snapshot`."""
        raise NotImplementedError

    def holds(self) -> set[Need]:
        """The needs that hold now, from the snapshot and the cursor."""
        return set()

    # What all share

    @property
    def ws(self) -> Workspace:
        return self.hafs.ws

    @property
    def hafs(self) -> HafsApp:
        return cast("HafsApp", self.app)

    def compose(self) -> ComposeResult:
        keymap = self.hafs.keymap
        yield TitleBar(self.GROUP, [keymap.shown(f"mode.{mode.id}") for mode in MODES])
        yield from self.body()
        yield KeyBar()

    def on_mount(self) -> None:
        self.update_keys()

    @on(events.ScreenResume)
    def _resumed(self) -> None:
        self.read_again()

    @on(Changed)
    def _rows_changed(self) -> None:
        self.read_again()

    @on(TitleBar.Chosen)
    def _mode_clicked(self, message: TitleBar.Chosen) -> None:
        self.hafs.action_open_mode(message.mode)

    @property
    def is_shown(self) -> bool:
        """Whether a person can see this screen, perhaps under a dialog. An app that is closing takes the
        widgets of a screen away before its timers and workers, which must not look for them then."""
        return self.app.is_running and self.is_current

    def read_everything(self) -> None:
        """What the person's own Refresh does; a screen that keeps more than its snapshot extends it."""
        self.read_again()

    def read_again(self) -> None:
        """Read the snapshot soon; many calls while one reading is under way make one more reading."""
        self._stale = True
        if not self._reading:
            self._reading = True
            self.run_worker(self._read_while_stale(), group="snapshot")

    async def _read_while_stale(self) -> None:
        try:
            while self._stale and self.is_shown:
                self._stale = False
                began = time.monotonic()
                try:
                    snapshot = await self.read()
                except (SettingsError, StoreError) as error:
                    # A file that is being edited, a full disk: what was read last stays on the screen.
                    self.tell(str(error), severity="error")
                    return
                if not (self.is_mounted and self.app.is_running):
                    return
                self.snapshot = snapshot
                self.show(snapshot)
                self.update_keys()
                await asyncio.sleep(max(_LEAST_GAP_S, _GAP * (time.monotonic() - began)))
        finally:
            self._reading = False

    def update_keys(self) -> None:
        """Bring the key bar up to date with what is possible now."""
        keymap, holds = self.hafs.keymap, self.holds()
        hints = [
            KeyHint(keymap.shown(action.id), action.label, unmet(action, holds) is None)
            for action in of_group(self.GROUP)
            if action.footer
        ]
        last = [KeyHint(keymap.shown(a.id), a.label) for a in of_group("app") if a.footer]
        try:
            self.query_one(KeyBar).set_hints(hints, last)
        except NoMatches:
            return  # not composed yet: on_mount comes here again

    async def action_perform(self, action_id: str) -> None:
        """Do an action of this screen, or say why it cannot be done now."""
        action = action_of(action_id)
        need = unmet(action, self.holds())
        if need is not None:
            self.tell(f"{action.label}: {need.value}", severity="warning")
            return
        done = getattr(self, f"do_{action.name}")()
        if isinstance(done, Awaitable):
            await done

    def tell(self, message: str, *, severity: str = "information", title: str = "") -> None:
        """A notification from text of any origin."""
        self.hafs.tell(message, severity=severity, title=title)

    def work(
        self,
        job: Coroutine[Any, Any, Result],
        then: Callable[[Result], object] | None = None,
        *,
        group: str = "work",
        exclusive: bool = False,
    ) -> None:
        """Run an action's coroutine in a worker of this screen; its expected errors become notifications."""

        async def run() -> None:
            found = await self.hafs.guarded(job)
            if found is not None and then is not None:
                then(found.value)

        self.run_worker(run(), group=group, exclusive=exclusive)


def mode_keys(group: str) -> list[Binding]:
    """The default key bindings of a mode screen; the user's remapping is laid over by the app."""
    return action_bindings(of_group(group))
