"""The execution child: `python -S -m backend.execution.core_child ASAR CORE`, started by `pool` (either may be empty).

It runs nothing that a model wrote in its own process. For each message on stdin it makes a process that first
gives up what it does not need (`sandbox`) and then becomes asar, or runs the ROM in the core; it measures the
time, reads what came out, and answers on stdout. It ends when its stdin ends. POSIX, standard library only.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from backend.execution import messages, sandbox
from backend.execution.core import WRAM_BYTES, Core, CoreError

SYSTEM_LIBRARIES = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/nix/store",
)
MOST_OUTPUT = 256 * 1024
MOST_FILE = 16 * sandbox.MIB
ASSEMBLER = sandbox.Limits(cpu_s=3, memory=512 * sandbox.MIB, file_size=MOST_FILE)
ASSEMBLER_WALL_S = 10.0
LOAD_WALL_S = 5.0
_SANDBOX_FAILED = 125
CORE = sandbox.Limits(cpu_s=30, memory=1024 * sandbox.MIB, file_size=0)

# What the process of a case leaves in memory that it shares with us: a state, a figure (frames, or the
# signal that ended it), then the WRAM. A record that nothing was written to says that its case was not reached.
_RECORD = struct.Struct("=II")
_RECORD_BYTES = _RECORD.size + WRAM_BYTES
_STATES = ("not_reached", "finished", "not_finished", "late", "crash", "loaded", "refused", "broken")
_NOT_REACHED, _FINISHED, _NOT_FINISHED, _LATE, _CRASH, _LOADED, _REFUSED, _BROKEN = range(8)


@dataclass(frozen=True, slots=True)
class _Ended:
    """How a process ended: its exit status or its signal, and whether it was ended for taking too long."""

    status: int
    signal: int
    late: bool


def _spawn(work: Callable[[], None], *, group: bool = True) -> tuple[int, int]:
    """Run `work` in a process, of a `group` of its own; its id, and a descriptor that reads as ended when the
    process is. Our own messages are out of its reach."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    try:
        sandbox.die_with_parent()
        if group:
            os.setpgid(0, 0)
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, 0)
            os.dup2(nothing, 1)
        work()
    except BaseException as error:  # nothing of it may run on in the child of a fork
        _write_all(2, f"{type(error).__name__}: {error}\n".encode("utf-8", "replace"))
        os._exit(_SANDBOX_FAILED)
    os._exit(0)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _wait(pid: int, alive: int, wall_s: float) -> _Ended:
    """Wait for a process of `_spawn`, at most so long; then its whole group is ended."""
    late = not select.select([alive], [], [], wall_s)[0]
    os.close(alive)
    return _reap(pid, late)


def _reap(pid: int, late: bool) -> _Ended:
    if late:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return _Ended(-1, os.WTERMSIG(status), late)
    return _Ended(os.WEXITSTATUS(status), 0, late)


def assemble(asar: str, header: dict[str, Any], blobs: list[bytes]) -> tuple[dict[str, Any], list[bytes]]:
    """Assemble `header["main"]` of the files named in `header["files"]`, whose texts are the blobs, over the
    last blob where `header["patch"]` is set. Answers exit status, signal, whether it was late or wrote too
    much, and as blobs: standard output, standard error, the ROM (empty where none was made). `broken` says
    why asar was not even started."""
    if header["hide_files"] and not sandbox.landlock_version():
        return {
            "broken": "defines or macros could name a file, and there is no Landlock here to hide files"
        }, []
    folder = tempfile.mkdtemp(dir=header["folder"])
    try:
        for name, text in zip(header["files"], blobs, strict=False):
            with open(os.path.join(folder, name), "wb") as file:
                file.write(text)
        rom = os.path.join(folder, "out.sfc")
        if header["patch"]:
            with open(rom, "wb") as file:
                file.write(blobs[-1])
        ended, output, errors, overflow = _run_assembler(asar, header["main"], folder)
        made = b""
        if os.path.isfile(rom) and not os.path.islink(rom):
            with open(rom, "rb") as file:
                made = file.read(MOST_FILE)
        said = {
            "broken": errors.decode("utf-8", "replace") if ended.status == _SANDBOX_FAILED else "",
            "status": ended.status,
            "signal": ended.signal,
            "late": ended.late,
            "overflow": overflow,
        }
        return said, [output, errors, made]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_assembler(asar: str, main: str, folder: str) -> tuple[_Ended, bytes, bytes, bool]:
    out_reader, out_writer = os.pipe()
    error_reader, error_writer = os.pipe()
    arguments = [asar, "--no-title-check", "--fix-checksum=off", "--symbols=none", main, "out.sfc"]

    def become_asar() -> None:
        os.chdir(folder)
        os.dup2(out_writer, 1)
        os.dup2(error_writer, 2)
        sandbox.limit_resources(ASSEMBLER, processes=False)
        sandbox.restrict_files([asar, *SYSTEM_LIBRARIES], folder)
        sandbox.forbid_processes(programs=True)
        os.execve(asar, arguments, {"PATH": "", "HOME": folder, "LC_ALL": "C"})  # noqa: S606 - no shell wanted

    pid, alive = _spawn(become_asar)
    os.close(out_writer)
    os.close(error_writer)
    os.close(alive)
    taken: dict[int, list[bytes]] = {out_reader: [], error_reader: []}
    open_ones, size = set(taken), 0
    deadline = time.monotonic() + ASSEMBLER_WALL_S
    while open_ones and size <= MOST_OUTPUT:
        ready = select.select(list(open_ones), [], [], max(0.0, deadline - time.monotonic()))[0]
        if not ready:
            break
        for descriptor in ready:
            piece = os.read(descriptor, 65_536)
            if not piece:
                open_ones.discard(descriptor)
            taken[descriptor].append(piece)
            size += len(piece)
    overflow = size > MOST_OUTPUT
    ended = _reap(pid, late=bool(open_ones))
    os.close(out_reader)
    os.close(error_reader)
    output, errors = (b"".join(taken[descriptor])[:MOST_OUTPUT] for descriptor in (out_reader, error_reader))
    return ended, output, errors, overflow


def run_cases(core: Core, header: dict[str, Any], blobs: list[bytes]) -> tuple[dict[str, Any], list[bytes]]:
    """Run the ROM (first blob) once for each case, from the WRAM that is its blob. Answers for each case how
    it ended and after how many frames, and as blobs the WRAMs of those that came to an end."""
    rom, *images = blobs
    cases = header["cases"]
    shared = mmap.mmap(-1, _RECORD.size + len(cases) * _RECORD_BYTES)
    wall = LOAD_WALL_S + sum(case["wall_s"] for case in cases)
    pid, alive = _spawn(lambda: _load_and_run(core, rom, cases, images, shared))
    loader = _wait(pid, alive, wall + 2.0)
    loaded = _RECORD.unpack_from(shared, 0)[0]
    results, wrams = [], []
    for number in range(len(cases)):
        start = _RECORD.size + number * _RECORD_BYTES
        state, figure = _RECORD.unpack_from(shared, start)
        results.append({"ended": _STATES[state], "figure": figure})
        came_out = state in (_FINISHED, _NOT_FINISHED)
        wrams.append(shared[start + _RECORD.size : start + _RECORD_BYTES] if came_out else b"")
    shared.close()
    said = {"load": _STATES[loaded], "late": loader.late, "signal": loader.signal, "status": loader.status}
    return {**said, "cases": results}, wrams


def _load_and_run(
    core: Core, rom: bytes, cases: list[dict[str, Any]], images: list[bytes], shared: mmap.mmap
) -> None:
    sandbox.limit_resources(CORE, processes=True)
    sandbox.restrict_files([], None)
    try:
        core.load(rom)
    except CoreError:
        _RECORD.pack_into(shared, 0, _REFUSED, 0)
        return
    _RECORD.pack_into(shared, 0, _LOADED, 0)
    for number, (case, image) in enumerate(zip(cases, images, strict=True)):
        start = _RECORD.size + number * _RECORD_BYTES
        # A process for each case: none can see, or break, what the next one starts from.
        work = partial(_run_case, core, case, image, shared, start)
        ended = _wait(*_spawn(work, group=False), case["wall_s"])
        if ended.late or ended.signal == signal.SIGXCPU:
            _RECORD.pack_into(shared, start, _LATE, 0)
            return
        if ended.status == _SANDBOX_FAILED:
            _RECORD.pack_into(shared, start, _BROKEN, 0)
            return
        if ended.signal or ended.status:
            _RECORD.pack_into(shared, start, _CRASH, ended.signal)
            return


def _run_case(core: Core, case: dict[str, Any], image: bytes, shared: mmap.mmap, start: int) -> None:
    sandbox.limit_resources(CORE, processes=False)
    sandbox.forbid_processes(programs=False)
    done = [(offset, bytes.fromhex(value)) for offset, value in case["done"]]
    frame = core.run(image, case["frames"], done)
    shared[start + _RECORD.size : start + _RECORD_BYTES] = core.wram()
    state = _NOT_FINISHED if frame is None else _FINISHED
    _RECORD.pack_into(shared, start, state, case["frames"] if frame is None else frame)


def main(asar: str, core_path: str) -> NoReturn:
    """Answer messages until stdin ends. The first message out says which core was loaded, or why not."""
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    hello: dict[str, Any] = {"core": "", "version": "", "error": "", "landlock": sandbox.landlock_version()}
    core = None
    if core_path:
        try:
            core = Core(core_path)
            hello.update(core=core.name, version=core.version)
        except CoreError as error:
            hello["error"] = str(error)
    stdout.write(messages.pack(hello))
    stdout.flush()
    while (message := messages.read(stdin)) is not None:
        header, blobs = message
        if header["kind"] == "assemble":
            answer = assemble(asar, header, blobs)
        elif core is not None:
            answer = run_cases(core, header, blobs)
        else:
            answer = ({"broken": hello["error"] or "no core was named"}, [])
        stdout.write(messages.pack(*answer))
        stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:3])
