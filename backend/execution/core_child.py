"""The child that runs ROMs: `python -S -m backend.execution.core_child CORE FOLDER`, started by `pool`.

It loads the core and at once gives up all files, the network and other programs. For each message on stdin it
loads the ROM and makes a process for each case, which runs it and leaves its WRAM in shared memory: nothing of
a ROM is ever executed in this process. It ends when its stdin ends. POSIX, standard library only.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import sys
from functools import partial
from typing import Any

from backend.execution import messages, sandbox
from backend.execution.core import WRAM_BYTES, Core, CoreError
from backend.execution.forking import SANDBOX_FAILED, spawn, wait

_MEMORY = 1024 * sandbox.MIB
# What the process of a case leaves in the memory that it shares with us: whether its case was over in time,
# the frames that were run, then the WRAM.
_RECORD = struct.Struct("=II")
_NOTHING, _FINISHED, _NOT_FINISHED = 0, 1, 2


def run_cases(
    core: Core, header: dict[str, Any], blobs: list[bytes], nothing: int
) -> tuple[dict[str, Any], list[bytes]]:
    """Run the ROM (first blob) once for each case, from the WRAM that is its blob. Answers for each case how
    it ended and after how many frames, and as blobs the WRAMs of those that came to an end. What comes after
    a case that crashed or took too long is not reached."""
    rom, *images = blobs
    try:
        core.load(rom)
    except CoreError as error:
        return {"refused": str(error), "cases": []}, []
    results: list[dict[str, Any]] = []
    wrams = []
    with mmap.mmap(-1, _RECORD.size + WRAM_BYTES) as shared:
        for case, image in zip(header["cases"], images, strict=True):
            if results and results[-1]["ended"] not in ("finished", "not_finished"):
                results.append({"ended": "not_reached", "frames": 0})
            else:
                results.append(_run_apart(core, case, image, shared, nothing))
            ended = results[-1]["ended"] in ("finished", "not_finished")
            wrams.append(shared[_RECORD.size :] if ended else b"")
    return {"refused": "", "cases": results}, wrams


def _run_apart(
    core: Core, case: dict[str, Any], image: bytes, shared: mmap.mmap, nothing: int
) -> dict[str, Any]:
    """One case in a process of its own: it can neither see nor break what the next one starts from."""
    _RECORD.pack_into(shared, 0, _NOTHING, 0)
    pid, alive = spawn(partial(_run_case, core, case, image, shared), nothing)
    process = wait(pid, alive, case["wall_s"])
    state, frames = _RECORD.unpack_from(shared, 0)
    if process.late or process.signal == signal.SIGXCPU:
        ended = "late"
    elif process.status == SANDBOX_FAILED:
        ended = "broken"
    elif process.signal or process.status or state == _NOTHING:
        ended = "crash"
    else:
        ended = "finished" if state == _FINISHED else "not_finished"
    return {"ended": ended, "frames": frames}


def _run_case(core: Core, case: dict[str, Any], image: bytes, shared: mmap.mmap) -> None:
    limits = sandbox.Limits(cpu_s=case["cpu_s"], memory=_MEMORY, file_size=0)
    sandbox.limit_resources(limits, processes=False)
    # Once more, within what this child has given up itself: the child is now out of reach of signals and tracing.
    sandbox.restrict_files([], None)
    sandbox.forbid_processes(programs=False)
    done = [(offset, bytes.fromhex(value)) for offset, value in case["done"]]
    frame = core.run(image, case["frames"], done)
    shared[_RECORD.size :] = core.wram()
    _RECORD.pack_into(shared, 0, _FINISHED if frame else _NOT_FINISHED, frame or case["frames"])


def main(path: str) -> None:
    """Answer messages until stdin ends. The first one out says which core was loaded, or why not."""
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        core = Core(path)
        sandbox.restrict_files([], None)
    except (CoreError, OSError) as error:
        messages.write(sys.stdout.buffer, {"error": str(error)})
        return
    messages.write(sys.stdout.buffer, {"error": "", "core": f"{core.name} {core.version}"})
    while (message := messages.read(sys.stdin.buffer)) is not None:
        messages.write(sys.stdout.buffer, *run_cases(core, *message, nothing))


if __name__ == "__main__":
    main(sys.argv[1])
