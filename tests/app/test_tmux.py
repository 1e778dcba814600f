"""The real program in tmux: keys, a resize, detaching and a lost server are a normal day for it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.settings import open_workspace
from backend.store.samples import Filter, ids
from tests.app.terminal import PROGRAM, ROOT
from tests.app.world import put_samples

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed (.ci/run does)")


class Tmux:
    """A tmux server of its own with the app in its one pane."""

    def __init__(self, socket: Path, home: Path) -> None:
        self._socket = socket
        environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TMUX", "COLORTERM")}
        command = [sys.executable, "-c", PROGRAM, str(home)]
        self.run(
            "-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "-c", str(ROOT),
            "-e", f"PYTHONPATH={ROOT}", *command, env=environment,
        )  # fmt: skip
        self.pid = int(self.run("list-panes", "-F", "#{pane_pid}"))

    def run(self, *arguments: str, env: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            ["tmux", "-S", str(self._socket), *arguments], capture_output=True, text=True, env=env, check=True
        )
        return done.stdout

    def keys(self, *names: str) -> None:
        self.run("send-keys", *names)

    def text(self) -> str:
        return self.run("capture-pane", "-p")

    def until(self, words: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while words not in self.text():
            assert time.monotonic() < deadline, f"{words!r} never came:\n{self.text()}"
            time.sleep(0.05)

    def until_gone(self, words: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while words in self.text():
            assert time.monotonic() < deadline, f"{words!r} stayed:\n{self.text()}"
            time.sleep(0.05)

    def ended(self, seconds: float = 60) -> None:
        """Wait until the program is gone."""
        deadline = time.monotonic() + seconds
        while Path(f"/proc/{self.pid}").exists() if sys.platform == "linux" else _lives(self.pid):
            assert time.monotonic() < deadline, "the program stayed"
            time.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    home = tmp_path / "home"

    async def fill() -> None:
        async with open_workspace(home) as ws:
            await put_samples(ws, [f"explain opcode {n}" for n in range(1, 6)])

    asyncio.run(fill())
    server = Tmux(tmp_path / "socket", home)
    yield server
    subprocess.run(["tmux", "-S", str(tmp_path / "socket"), "kill-server"], capture_output=True, check=False)


def states(home: Path) -> dict[str, int]:
    async def read() -> dict[str, int]:
        async with open_workspace(home) as ws:
            return {
                state: len(await ids(ws.db, Filter(states=(state,))))  # type: ignore[arg-type]
                for state in ("pending", "approved", "rejected")
            }

    return asyncio.run(read())


def test_a_review_in_tmux_survives_a_resize_and_a_detach(tmux: Tmux, tmp_path: Path) -> None:
    tmux.until("[1 Overview]")
    tmux.keys("3")
    tmux.until("explain opcode 5")
    tmux.keys("a")
    tmux.until("✓ 1 approved")
    tmux.run("resize-window", "-x", "60", "-y", "20")
    tmux.until("needs 80x24")
    tmux.run("resize-window", "-x", "120", "-y", "40")
    tmux.until("[3 Review]")
    tmux.keys("x")
    tmux.until("✗ 1 rejected")
    tmux.keys("u")
    tmux.until("✗ 0 rejected")
    tmux.keys("?")
    tmux.until("Keys of this mode")
    tmux.keys("Escape")
    # An Escape with a key right behind it is Alt and that key: the dialog must be gone first.
    tmux.until_gone("Keys of this mode")
    tmux.keys("q")
    tmux.ended()
    assert states(tmp_path / "home") == {"pending": 4, "approved": 1, "rejected": 0}


def test_a_lost_server_ends_the_program_and_loses_nothing(tmux: Tmux, tmp_path: Path) -> None:
    tmux.until("[1 Overview]")
    tmux.keys("3")
    tmux.until("explain opcode 5")
    tmux.keys("a", "a")
    tmux.until("✓ 2 approved")
    tmux.run("kill-server")
    tmux.ended()
    assert states(tmp_path / "home")["approved"] == 2
