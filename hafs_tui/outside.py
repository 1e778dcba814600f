"""A person's own editor on a text of ours, with the terminal lent to it meanwhile.

While the editor has the terminal the app paints nothing, but its loop goes on: campaigns, mirrors and the
feed do not wait for a person who types.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from textual.app import App, SuspendNotSupported


class EditorError(ValueError):
    """The editor could not be used; the message says why and what to set."""


def editor() -> list[str]:
    """The words of $VISUAL or $EDITOR, else the system's plain one."""
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if named:
        return shlex.split(named, posix=os.name != "nt")
    return ["notepad"] if os.name == "nt" else ["vi"]


async def edit_outside(app: App[Any], text: str, *, suffix: str) -> str | None:
    """`text` as a person left it in their editor, without the newline that editors add at the end; None where
    nothing changed. Raises EditorError for an editor that is not there, or that ended with an error."""
    with tempfile.TemporaryDirectory(prefix="hafs-") as folder:
        file = Path(folder) / f"answer{suffix}"
        file.write_text(text + "\n", "utf-8")
        await _run(app, [*editor(), str(file)])
        edited = file.read_text("utf-8").removesuffix("\n")
    return None if edited == text else edited


async def _run(app: App[Any], command: list[str]) -> None:
    problem = ""
    try:
        # A driver that is suspended has nobody who writes: what is painted meanwhile would block the loop.
        with app.batch_update(), app.suspend():
            # What is raised in here would leave the terminal suspended.
            try:
                done = await asyncio.to_thread(subprocess.run, command, check=False)
                problem = f"ended with {done.returncode}" if done.returncode else ""
            except OSError as error:
                problem = f"cannot be started: {error.strerror}"
    except SuspendNotSupported as error:
        raise EditorError("this terminal cannot be lent to an editor; e edits in place") from error
    app.refresh(layout=True)
    if problem:
        raise EditorError(f"{command[0]} {problem}; nothing was changed. Set EDITOR, or edit in place with e")
