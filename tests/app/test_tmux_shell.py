"""The program started from a shell in tmux, as people do: every mode by its key, and back to a whole shell."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import uuid
from pathlib import Path

from backend.settings import open_workspace
from backend.store.samples import Filter, ids
from hafs_tui.actions import MODES
from tests.app.terminal import ROOT
from tests.app.world import put_samples


class Pane:
    """A shell in an 80x24 pane of a tmux server of its own."""

    def __init__(self) -> None:
        self._server = f"hafs-test-{uuid.uuid4().hex[:12]}"
        self.run(
            *("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "-c", str(ROOT)),
            *("-e", "PS1=ready>", "-e", "ENV=", "/bin/sh", "-i"),
        )

    def run(self, *arguments: str) -> str:
        return subprocess.run(
            ["tmux", "-L", self._server, *arguments], capture_output=True, text=True, check=True
        ).stdout

    def __enter__(self) -> Pane:
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["tmux", "-L", self._server, "kill-server"], capture_output=True, check=False)

    def type(self, text: str) -> None:
        self.run("send-keys", "-l", text)
        self.run("send-keys", "Enter")

    def keys(self, *names: str) -> None:
        self.run("send-keys", *names)

    def text(self) -> str:
        return self.run("capture-pane", "-p")

    def until(self, words: str, seconds: float = 60) -> str:
        deadline = time.monotonic() + seconds
        while words not in (text := self.text()):
            assert time.monotonic() < deadline, f"{words!r} never came:\n{text}"
            time.sleep(0.05)
        return text

    def asks(self, what: str) -> str:
        return self.run("display-message", "-p", f"#{{{what}}}").strip()


def test_from_a_shell_through_every_mode_and_back(tmp_path: Path) -> None:
    home = tmp_path / "home"

    async def fill() -> None:
        async with open_workspace(home) as ws:
            await put_samples(ws, [f"explain opcode {n}" for n in range(1, 4)])

    async def approved() -> int:
        async with open_workspace(home) as ws:
            return len(await ids(ws.db, Filter(states=("approved",))))

    asyncio.run(fill())
    with Pane() as pane:
        pane.until("ready>")
        pane.type("echo kept on the screen")
        pane.type(f"{sys.executable} -m hafs_tui --home {home}; echo status=$?")
        pane.until("[1 Overview]")
        assert pane.asks("alternate_on") == "1"
        for mode in MODES:
            key = mode.keys.partition(",")[0]
            pane.keys(key)
            pane.until(f"[{key} ")
        pane.keys("3")
        pane.until("explain opcode 3")
        pane.keys("a")
        pane.until("✓ 1 approved")
        pane.keys("q")
        screen = pane.until("status=0")
        assert "kept on the screen" in screen
        assert "explain opcode" not in screen
        assert (pane.asks("alternate_on"), pane.asks("cursor_flag")) == ("0", "1")
        assert [pane.asks(f"mouse_{kind}_flag") for kind in ("any", "sgr", "standard")] == ["0", "0", "0"]
        pane.type("echo still a shell")
        pane.until("still a shell\nready>")
    assert asyncio.run(approved()) == 1
