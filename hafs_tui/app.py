"""The app: eight modes over one database, one action table, and a way out that leaves the terminal whole."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, cast

from rich.segment import Segments
from rich.text import Text
from textual import events
from textual.app import App
from textual.binding import Binding, BindingType
from textual.command import CommandPalette
from textual.driver import Driver
from textual.geometry import Size

from backend.hosts.gauges import Gauges, watch_gauges
from backend.hosts.mirror import mirror_all
from backend.settings import Workspace
from hafs_tui.actions import MODES, of_group
from hafs_tui.background import Background
from hafs_tui.crash import write_crash
from hafs_tui.driver import surviving
from hafs_tui.feed import Changed, watch
from hafs_tui.keymap import Keymap, action_bindings, action_of, changes, make_keymap, mode_bindings
from hafs_tui.mode_screen import ModeScreen
from hafs_tui.palette import ActionCommands
from hafs_tui.sanitize import ControlFilter, sanitize
from hafs_tui.screens import mode_screens
from hafs_tui.themes import DARK, LIGHT
from hafs_tui.widgets.confirm import Confirm
from hafs_tui.widgets.help_screen import HelpScreen
from hafs_tui.widgets.too_small import TooSmall, too_small

Result = TypeVar("Result")

_HANGUP = 129

# Work behind the screens that only watches: nothing is lost when it ends.
MIRROR, GAUGES, CHAT = "mirror of jobs", "gauges", "chat"
WATCHING = (MIRROR, GAUGES, CHAT)


@dataclass(frozen=True, slots=True)
class Done(Generic[Result]):
    """The result of an action that went well."""

    value: Result


class HafsApp(App[None]):
    """The whole program on a screen.

    `ws` is an open workspace and `background` an entered owner of work; both are closed by the caller, after
    the app. With `live` the app also mirrors jobs and watches gauges.
    """

    TITLE = "hafs-tui"
    CSS_PATH = "app.tcss"
    MODES: ClassVar[dict[str, Any]] = mode_screens()
    DEFAULT_MODE = "overview"
    # The palette is opened by our own action, so that its key can be remapped like any other.
    ENABLE_COMMAND_PALETTE = False
    COMMANDS: ClassVar[set[Any]] = {ActionCommands}
    BINDINGS: ClassVar[list[BindingType]] = [
        *action_bindings(of_group("app")),
        *mode_bindings(),
        # The one key that works everywhere, also in a dialog and in a terminal that is too small.
        Binding("ctrl+q", "perform('app.quit')", "Quit", show=False, priority=True),
    ]

    def __init__(self, ws: Workspace, background: Background, *, live: bool = False) -> None:
        super().__init__()
        self.ws = ws
        self.background = background
        self.gauges = Gauges()
        self.keymap: Keymap = make_keymap(ws.settings.app.keys)
        self._live = live
        self._filters.append(ControlFilter())
        for theme in (DARK, LIGHT):
            self.register_theme(theme)
        self.theme = LIGHT.name if ws.settings.app.theme == "light" else DARK.name
        self.crash_log: Path | None = None
        background.told = self._background_failed

    def get_driver_class(self) -> type[Driver]:
        return surviving(super().get_driver_class())

    def on_mount(self) -> None:
        self.set_keymap(changes(self.keymap))
        for problem in self.keymap.problems:
            self.tell(problem, severity="warning", title="Settings")
        self.run_worker(watch(self.ws.db.data_version, self._announce), group="feed")
        self.set_interval(1.0, self._look_at_terminal)
        if self._live:
            self.background.start(MIRROR, mirror_all(self.ws))
            self.background.start(GAUGES, watch_gauges(self.ws, self.gauges))

    async def watch_hosts(self) -> None:
        """Watch the hosts that there are now; called again when hosts.toml has changed."""
        if self._live:
            await self.background.stop(GAUGES)
            self.gauges = Gauges()
            self.background.start(GAUGES, watch_gauges(self.ws, self.gauges))

    def _background_failed(self, name: str, error: Exception) -> None:
        self.tell(f"{name}: {self.explain(error)}", severity="error")

    def _announce(self) -> None:
        if isinstance(self.screen, ModeScreen):
            self.screen.post_message(Changed())

    def _look_at_terminal(self) -> None:
        if self.is_headless:
            return
        terminal = sys.__stdin__.fileno() if sys.__stdin__ else -1
        if not os.isatty(terminal):
            # With SIGHUP ignored by whoever started us, a vanished terminal would leave a spinning process.
            self.exit(return_code=_HANGUP)
            return
        size = Size(*os.get_terminal_size(terminal))
        if size != self.screen.size and size.area:
            # On a busy machine the signal of a change of size was seen to get lost.
            self.post_message(events.Resize(size, size))

    def on_resize(self, event: events.Resize) -> None:
        small = too_small(event.size)
        shown = isinstance(self.screen, TooSmall)
        if small and not shown:
            self.push_screen(TooSmall())
        elif not small and shown:
            self.pop_screen()

    # Actions

    @property
    def mode_screen(self) -> ModeScreen[Any] | None:
        """The screen of the open mode, also under a dialog."""
        return next((s for s in reversed(self.screen_stack) if isinstance(s, ModeScreen)), None)

    async def action_perform(self, action_id: str) -> None:
        """Do an action of the app by its identifier."""
        done = getattr(self, f"do_{action_of(action_id).name}")()
        if isinstance(done, Coroutine):
            await done

    async def perform(self, action_id: str) -> None:
        """Do any action, of the app, of the open mode or of another (which is opened first)."""
        group, _, name = action_id.partition(".")
        if group == "mode":
            self.action_open_mode(name)
        elif group == "app":
            await self.action_perform(action_id)
        else:
            await self.switch_mode(group)
            await cast("ModeScreen[Any]", self.screen).action_perform(action_id)

    def action_open_mode(self, mode: str) -> None:
        if self.current_mode != mode:
            self.switch_mode(mode)

    def do_help(self) -> None:
        screen = self.mode_screen
        if screen is not None and not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen(self.keymap, screen.GROUP, screen.holds()))

    def do_palette(self) -> None:
        if not CommandPalette.is_open(cast("App[object]", self)):
            self.push_screen(CommandPalette(id="--command-palette"))

    def do_theme(self) -> None:
        self.theme = LIGHT.name if self.theme == DARK.name else DARK.name

    def do_refresh(self) -> None:
        if self.mode_screen is not None:
            self.mode_screen.read_everything()
        self.refresh(layout=True)

    def do_quit(self) -> None:
        """Leave, at once where nothing is lost by it, else after a question."""
        here = [name for name in self.background.names() if name not in WATCHING]
        if not here or isinstance(self.screen, Confirm):
            self.exit()
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.exit()

        question = f"This ends with the app: {', '.join(here)}.\nCampaigns pause and can go on later. Quit?"
        self.push_screen(Confirm(question, "Quit"), answered)

    async def action_quit(self) -> None:
        self.do_quit()

    # Errors

    def tell(self, message: str, *, severity: str = "information", title: str = "") -> None:
        """A notification from text of any origin: sanitized, and never markup."""
        # A title has no way to be plain; markup in it is ours alone, so text of others has no place there.
        self.notify(
            sanitize(message),
            title=sanitize(title).replace("[", "("),
            severity=cast("Any", severity),
            markup=False,
            timeout=8 if severity == "error" else 5,
        )

    async def guarded(self, job: Awaitable[Result]) -> Done[Result] | None:
        """Await an action of the backend. An error is told and, unless it explains itself, logged."""
        try:
            return Done(await job)
        except Exception as error:  # the one place where an action's error ends: it is told, and logged
            self.tell(self.explain(error), severity="error")
            return None

    def explain(self, error: Exception) -> str:
        """An error in words. One that does not explain itself is written to `logs/`, which is named."""
        if expected(error):
            return str(error)
        return f"{type(error).__name__}: {error}\nDetails in {write_crash(error, self.ws.logs)}"

    def _fatal_error(self) -> None:
        """Leave after an unhandled error: the traceback goes to a file, the terminal gets its name.

        Textual's own version prints local variables, and in them prompts and keys.
        """
        error = self._exception or sys.exc_info()[1] or RuntimeError("unknown error")
        try:
            self.crash_log = write_crash(error, self.ws.logs)
            told = f"hafs-tui stopped on an error ({type(error).__name__}). Details: {self.crash_log}"
        except OSError as problem:
            told = f"hafs-tui stopped on an error ({type(error).__name__}); no log: {problem}"
        rendered = self.console.render(Text(sanitize(told)), self.console.options)
        self._exit_renderables.append(Segments(rendered))
        self._close_messages_no_wait()


def expected(error: Exception) -> bool:
    """Whether an error explains itself to a person: those that our own code raises with a remedy."""
    return type(error).__module__.split(".")[0] in ("backend", "remote", "hafs_tui") or isinstance(
        error, OSError | ValueError
    )


assert [mode.id for mode in MODES] == list(HafsApp.MODES)  # noqa: S101  a mode without a screen never ships
