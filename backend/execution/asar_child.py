"""The child that assembles: `python -S -m backend.execution.asar_child ASAR FOLDER`, started by `pool`.

For each message on stdin it makes a process that gives up what it does not need (`sandbox`) and becomes asar,
measures its time, reads what it made, and answers on stdout. It ends when its stdin ends. POSIX, standard
library only.
"""

from __future__ import annotations

import os
import select
import shutil
import sys
import tempfile
import time
from typing import Any

from backend.execution import messages, sandbox
from backend.execution.forking import SANDBOX_FAILED, Ended, reap, spawn

_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/nix/store")
_MOST_OUTPUT = 256 * 1024
_MOST_FILE = 8 * sandbox.MIB
_LIMITS = sandbox.Limits(cpu_s=3, memory=512 * sandbox.MIB, file_size=_MOST_FILE)
_WALL_S = 30.0  # a machine that is busy is no fault of the answer: an endless loop ends by its CPU time


def assemble(
    asar: str, within: str, header: dict[str, Any], blobs: list[bytes], nothing: int
) -> tuple[dict[str, Any], list[bytes]]:
    """Assemble `header["main"]` of the files named in `header["files"]`, whose texts are the blobs, over the
    last blob where `header["patch"]` is set. Answers exit status, signal, whether it was late or wrote too
    much, and as blobs: standard output, standard error, the ROM (empty where none was made). `broken` says
    why asar was not even started."""
    if header["hide_files"] and not sandbox.landlock_version():
        return {
            "broken": "defines or macros could name a file, and there is no Landlock here to hide files"
        }, []
    folder = tempfile.mkdtemp(dir=within)
    try:
        for name, text in zip(header["files"], blobs, strict=False):
            with open(os.path.join(folder, name), "wb") as file:
                file.write(text)
        rom = os.path.join(folder, "out.sfc")
        if header["patch"]:
            with open(rom, "wb") as file:
                file.write(blobs[-1])
        ended, output, errors, overflow = _run_assembler(asar, header["main"], folder, nothing)
        made = b""
        if os.path.isfile(rom) and not os.path.islink(rom):
            with open(rom, "rb") as file:
                made = file.read(_MOST_FILE)
        said = {
            "broken": errors.decode("utf-8", "replace") if ended.status == SANDBOX_FAILED else "",
            "status": ended.status,
            "signal": ended.signal,
            "late": ended.late,
            "overflow": overflow,
        }
        return said, [output, errors, made]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_assembler(asar: str, main: str, folder: str, nothing: int) -> tuple[Ended, bytes, bytes, bool]:
    out_reader, out_writer = os.pipe()
    error_reader, error_writer = os.pipe()
    arguments = [asar, "--no-title-check", "--fix-checksum=off", "--symbols=none", main, "out.sfc"]

    def become_asar() -> None:
        os.chdir(folder)
        os.dup2(out_writer, 1)
        os.dup2(error_writer, 2)
        sandbox.limit_resources(_LIMITS, processes=False)
        sandbox.restrict_files([asar, *_LIBRARIES], folder)
        sandbox.forbid_processes(programs=True)
        os.execve(asar, arguments, {"PATH": "", "HOME": folder, "LC_ALL": "C"})  # noqa: S606 - no shell wanted

    pid, alive = spawn(become_asar, nothing)
    os.close(out_writer)
    os.close(error_writer)
    os.close(alive)
    taken: dict[int, list[bytes]] = {out_reader: [], error_reader: []}
    open_ones, size = set(taken), 0
    deadline = time.monotonic() + _WALL_S
    while open_ones and size <= _MOST_OUTPUT:
        ready = select.select(list(open_ones), [], [], max(0.0, deadline - time.monotonic()))[0]
        if not ready:
            break
        for descriptor in ready:
            piece = os.read(descriptor, 65_536)
            if not piece:
                open_ones.discard(descriptor)
            taken[descriptor].append(piece)
            size += len(piece)
    overflow = size > _MOST_OUTPUT
    ended = reap(pid, late=bool(open_ones))
    os.close(out_reader)
    os.close(error_reader)
    output, errors = (b"".join(taken[descriptor])[:_MOST_OUTPUT] for descriptor in (out_reader, error_reader))
    return ended, output, errors, overflow


def main(asar: str, folder: str) -> None:
    """Answer messages until stdin ends, after a first message that says it is there. Whoever started us ends us
    by a signal; where stdin ends instead, they were killed, and the folder is left to us."""
    nothing = os.open(os.devnull, os.O_RDWR)
    messages.write(sys.stdout.buffer, {"error": ""})
    while (message := messages.read(sys.stdin.buffer)) is not None:
        messages.write(sys.stdout.buffer, *assemble(asar, folder, *message, nothing))
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
