"""The real program in a pseudo terminal: keys go in, bytes come out, and the exit status is its own."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import pyte

ROOT = Path(__file__).parents[2]
PROGRAM = "import sys; from pathlib import Path; from hafs_tui.run import run_app; sys.exit(run_app(Path(sys.argv[1])))"


def _take_terminal() -> None:
    """Lead a session whose terminal is standard input, so that its end is heard."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """Runs the app on the workspace `home` in a terminal of `columns` by `rows`."""

    def __init__(
        self, home: Path, *, columns: int = 100, rows: int = 30, program: str = PROGRAM, **environment: str
    ) -> None:
        self.output = b""
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        settings: Mapping[str, str] = {
            **{name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TMUX")},
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "PYTHONPATH": str(ROOT),
            **environment,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, str(home)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=ROOT,
            env=settings,
            preexec_fn=_take_terminal,
        )
        os.close(slave)
        self._open = True

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        self.hang_up()

    def hang_up(self) -> None:
        """Take the terminal away, as a closed window or a lost connection does."""
        if self._open:
            self._open = False
            os.close(self._master)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def read(self, seconds: float) -> bytes:
        """What comes within `seconds`; less time when the program has ended."""
        got = b""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([self._master], [], [], left)
            if not ready:
                break
            try:
                data = os.read(self._master, 65536)
            except OSError:  # the other side is closed: the program has ended
                break
            if not data:
                break
            got += data
        self.output += got
        self._stream.feed(got)
        return got

    def text(self) -> str:
        """What the terminal shows."""
        # Not `screen.display`, which fails on a wide character that is half painted over.
        screen = self.screen
        return "\n".join(
            "".join(screen.buffer[y][x].data for x in range(screen.columns)) for y in range(screen.lines)
        )

    def until(self, words: str, seconds: float = 60) -> None:
        """Read until the terminal shows `words`."""
        deadline = time.monotonic() + seconds
        while words not in self.text():
            assert time.monotonic() < deadline, f"{words!r} never came; the terminal shows:\n{self.text()}"
            self.read(0.1)

    def until_output(self, wanted: bytes, seconds: float = 60) -> None:
        """Read until `wanted` has come since now."""
        got = b""
        deadline = time.monotonic() + seconds
        while wanted not in got:
            assert time.monotonic() < deadline, f"{wanted!r} never came"
            got += self.read(0.1)

    def ended(self, seconds: float = 60) -> int:
        """The exit status, once the program has ended."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it never ended; the terminal shows:\n{self.text()}"
            self.read(0.1)
        self.read(0.2)
        return self.process.returncode
