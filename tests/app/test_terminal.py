"""The real program in a real terminal: hostile text cannot act, and every way out leaves the terminal whole."""

from __future__ import annotations

import asyncio
import re
import signal
import sqlite3
import unicodedata
from pathlib import Path

import pytest

from backend.settings import open_workspace
from backend.store.connection import migrations
from tests.app.payloads import EVERYTHING, PAYLOADS
from tests.app.terminal import Terminal
from tests.app.world import put_samples, put_world

# What Textual itself writes: CSI sequences, and the shape of the mouse pointer.
_OWN = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\]22;[a-z-]*\x07")
LEAVE_ALTERNATE_SCREEN = b"\x1b[?1049l"
SHOW_CURSOR = b"\x1b[?25h"


def hostile_workspace(home: Path) -> None:
    async def fill() -> None:
        async with open_workspace(home) as ws:
            # SQLite takes no lone surrogates: they can only come by other ways, which other tests take.
            await put_world(ws, EVERYTHING.encode("utf-8", "replace").decode())
            await put_samples(ws, [p.encode("utf-8", "replace").decode() for p in PAYLOADS])

    asyncio.run(fill())


def leaks(output: bytes) -> list[str]:
    """Characters and sequences in what the program wrote that act on a terminal and are not Textual's own."""
    text = _OWN.sub("", output.decode("utf-8", "replace"))
    return sorted(
        {
            f"{ord(c):04X}"
            for c in text
            if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") and c not in "\r\n"
        }
    )


def test_hostile_text_leaks_through_no_screen(tmp_path: Path) -> None:
    hostile_workspace(tmp_path)
    with Terminal(tmp_path, columns=100, rows=30) as terminal:
        terminal.until("[1 Overview]")
        for key in "12345678":
            terminal.type(key)
            terminal.until(f"[{key} ")
            for step in ("", "j", "\t", "j", "G", "?", "\x1b"):
                terminal.type(step)
                terminal.read(0.25)
        terminal.type("3\x1b[Zg")
        for _ in PAYLOADS:
            terminal.type("j")
            terminal.read(0.1)
        for dialog in ("e", "/", "2n", "2X", "\x10"):
            terminal.type(dialog)
            terminal.read(0.6)
            terminal.type("\x1b")
            terminal.read(0.4)
        assert leaks(terminal.output) == []
        assert set(re.findall(rb"\x1b\](\d+)", terminal.output)) <= {b"22"}, "a foreign command was written"
        for glyph in ("␛", "‹202E›", "‹9B›", "‹E0041›", "[@click=app.quit]"):
            assert glyph in terminal.output.decode(), f"{glyph} was never shown"
        terminal.type("\x11")
        assert terminal.ended() == 0


def test_quitting_restores_the_terminal(tmp_path: Path) -> None:
    with Terminal(tmp_path) as terminal:
        terminal.until("[1 Overview]")
        terminal.type("q")
        assert terminal.ended() == 0
        assert LEAVE_ALTERNATE_SCREEN in terminal.output
        assert terminal.output.rindex(SHOW_CURSOR) > terminal.output.index(b"Overview")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_restores_the_terminal_and_is_the_status(tmp_path: Path, number: signal.Signals) -> None:
    with Terminal(tmp_path) as terminal:
        terminal.until("[1 Overview]")
        terminal.process.send_signal(number)
        assert terminal.ended() == 128 + number
        assert LEAVE_ALTERNATE_SCREEN in terminal.output


def test_a_terminal_that_hangs_up_ends_the_program(tmp_path: Path) -> None:
    """The kernel sends SIGHUP and SIGCONT; each of several tries must end, whichever is seen first."""
    for _ in range(3):
        with Terminal(tmp_path) as terminal:
            terminal.until("[1 Overview]")
            terminal.process.send_signal(signal.SIGCONT)
            terminal.hang_up()
            assert terminal.process.wait(timeout=30) == 128 + signal.SIGHUP


def test_a_stop_is_continued(tmp_path: Path) -> None:
    with Terminal(tmp_path) as terminal:
        terminal.until("[1 Overview]")
        terminal.process.send_signal(signal.SIGTSTP)
        terminal.until_output(LEAVE_ALTERNATE_SCREEN)
        terminal.process.send_signal(signal.SIGCONT)
        terminal.until_output(b"\x1b[?1049h")
        terminal.type("2")
        terminal.until("[2 Campaigns]")
        terminal.type("q")
        assert terminal.ended() == 0


def test_a_crash_is_a_failure_with_a_log_and_without_secrets(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from hafs_tui.run import run_app\n"
        "from hafs_tui.screens.review import ReviewScreen\n"
        "def broken(self, snapshot):\n"
        "    prompt = 'a private prompt'\n"
        "    raise RuntimeError('broken by sk-very-secret')\n"
        "ReviewScreen.show = broken\n"
        "sys.exit(run_app(Path(sys.argv[1])))"
    )
    with Terminal(tmp_path, program=program, OPENAI_API_KEY="sk-very-secret") as terminal:
        terminal.until("[1 Overview]")
        terminal.type("3")
        assert terminal.ended() == 1
        assert LEAVE_ALTERNATE_SCREEN in terminal.output
        after = terminal.output[terminal.output.rindex(LEAVE_ALTERNATE_SCREEN) :].decode()
        (log,) = (tmp_path / "logs").glob("crash_*.log")
        assert log.name in after.replace("\r\n", "")
        assert "very-secret" not in after
        written = log.read_text()
        assert "RuntimeError" in written
        assert "very-secret" not in written
        assert "private prompt" not in written.replace("prompt = 'a private prompt'", "")


def test_a_newer_database_is_refused_in_words(tmp_path: Path) -> None:
    database = tmp_path / "training" / "hafs.db"
    database.parent.mkdir()
    with sqlite3.connect(database) as connection:
        connection.execute(f"PRAGMA user_version = {migrations()[-1][0] + 1}")
    with Terminal(tmp_path) as terminal:
        assert terminal.ended() == 1
        assert "newer hafs-tui" in terminal.text()
        assert "Traceback" not in terminal.text()


def test_no_color_writes_no_colour(tmp_path: Path) -> None:
    with Terminal(tmp_path, NO_COLOR="1") as terminal:
        terminal.until("[1 Overview]")
        terminal.type("2")
        terminal.until("[2 Campaigns]")
        colours = {
            tuple(parts)
            for found in re.findall(rb"\x1b\[[0-9;]*?(?:3|4)8;2;(\d+;\d+;\d+)", terminal.output)
            if len(set(parts := found.split(b";"))) > 1
        }
        assert colours == set()
        terminal.type("q")
        assert terminal.ended() == 0
