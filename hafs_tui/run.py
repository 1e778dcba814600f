"""From a folder to an exit status: open the workspace, run the app, close the workspace."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from backend.settings import SettingsError, Workspace, open_workspace
from backend.store import StoreError
from hafs_tui.app import HafsApp
from hafs_tui.background import Background
from hafs_tui.logs import logs_to_file
from hafs_tui.sanitize import sanitize


@dataclass(frozen=True, slots=True)
class Demo:
    """The demo's loop runs behind the screens, trained on `host`; `fast` makes it smaller."""

    host: str = "local"
    fast: bool = False


def run_app(home: Path | None = None, demo: Demo | None = None) -> int:
    """Open the app on the workspace `home`, perhaps with the demo in it, and return the exit status.

    0 after quitting, 1 after a crash or when the workspace cannot be opened (the reason is on standard
    error), 128 + signal after SIGTERM or SIGHUP.
    """
    try:
        return asyncio.run(_run(home, demo))
    except (SettingsError, StoreError) as error:
        sys.stderr.write(f"hafs-tui: {sanitize(str(error))}\n")
        return 1


async def _run(home: Path | None, demo: Demo | None) -> int:
    async with open_workspace(home) as workspace, Background() as background:
        with logs_to_file(workspace.logs):
            return await _app(workspace, background, demo)


async def _app(workspace: Workspace, background: Background, demo: Demo | None) -> int:
    app = HafsApp(workspace, background, live=True)
    leave_on_signals(app)
    if demo is not None:
        background.start("demo", _demo(workspace, app, demo))
    await app.run_async()
    return app.return_code or 0


async def _demo(workspace: Workspace, app: HafsApp, demo: Demo) -> None:
    """Every stage writes rows, and the screens show them; what each stage did is told besides."""
    # The loop needs every room: without a demo, opening the app should not wait for them.
    from backend.demo.loop import Stage, run_demo

    def told(stage: Stage) -> None:
        if app.is_running:
            app.tell(stage.summary, title=f"{stage.name}: {stage.seconds:.0f} s")

    await run_demo(workspace, host=demo.host, fast=demo.fast, on_stage=told)


def leave_on_signals(app: HafsApp) -> None:
    """Let SIGTERM and SIGHUP leave the app as quitting does, with the terminal restored."""
    if sys.platform == "win32":
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, app.exit, None, 128 + number)
