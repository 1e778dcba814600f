"""From a folder to an exit status: open the workspace, run the app, close the workspace."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from backend.settings import SettingsError, open_workspace
from backend.store import StoreError
from hafs_tui.app import HafsApp
from hafs_tui.background import Background
from hafs_tui.sanitize import sanitize


def run_app(home: Path | None = None) -> int:
    """Open the app on the workspace `home` and return the exit status.

    0 after quitting, 1 after a crash or when the workspace cannot be opened (the reason is on standard
    error), 128 + signal after SIGTERM or SIGHUP.
    """
    try:
        return asyncio.run(_run(home))
    except (SettingsError, StoreError) as error:
        sys.stderr.write(f"hafs-tui: {sanitize(str(error))}\n")
        return 1


async def _run(home: Path | None) -> int:
    async with open_workspace(home) as workspace, Background() as background:
        app = HafsApp(workspace, background, live=True)
        leave_on_signals(app)
        await app.run_async()
        return app.return_code or 0


def leave_on_signals(app: HafsApp) -> None:
    """Let SIGTERM and SIGHUP leave the app as quitting does, with the terminal restored."""
    if sys.platform == "win32":
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, app.exit, None, 128 + number)
