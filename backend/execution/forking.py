"""Processes that the execution children make, and end: for each assembly and each case one.

POSIX, standard library only.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable
from dataclasses import dataclass

from backend.execution import sandbox

# The exit status of a process that could not even be confined: it never touched what it was made for.
SANDBOX_FAILED = 125


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: its exit status or its signal, and whether it was ended for taking too long."""

    status: int
    signal: int
    late: bool


def spawn(work: Callable[[], None], nothing: int) -> tuple[int, int]:
    """Run `work` in a process, of a group of its own; its id, and a descriptor that reads as ended when the
    process is. `nothing` (the null device) is put where our own messages would be within its reach."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    try:
        sandbox.die_with_parent()
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python; whoever writes too much is to end by it
            signal.signal(ignored, signal.SIG_DFL)
        os.setpgid(0, 0)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        work()
    except BaseException as error:  # nothing of it may run on in the child of a fork
        _write_all(2, f"{type(error).__name__}: {error}\n".encode("utf-8", "replace"))
        os._exit(SANDBOX_FAILED)
    os._exit(0)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def wait(pid: int, alive: int, wall_s: float) -> Ended:
    """Wait for a process of `spawn`, at most so long; then its whole group is ended."""
    late = not select.select([alive], [], [], wall_s)[0]
    os.close(alive)
    return reap(pid, late)


def reap(pid: int, late: bool) -> Ended:
    if late:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return Ended(-1, os.WTERMSIG(status), late)
    return Ended(os.WEXITSTATUS(status), 0, late)
