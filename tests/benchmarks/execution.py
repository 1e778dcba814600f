"""The execution room against asar and the core by themselves: what sandbox, forks and comparing cost.

"By themselves" is asar started on a file, and the core in this process without any protection, loading the ROM
and running the frames. The two take turns, one answer at a time, so both see the same machine.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

from backend.execution.core import Core
from backend.execution.expectations import read_expect
from backend.execution.items import Task, judge_answer
from backend.execution.pool import open_execution
from backend.execution.running import noise, padded
from backend.execution.tools import find_tools
from backend.settings import models
from tests.execution.roms import ROUTINE

TURNS, ITEMS, FRAMES = 60, 200, 3
CODE = "Answer:\n" + "    lda $10\n    inc a\n    sta $11\n" * 8 + "- bra -"
# It never returns, so all frames are run; what it left is compared.
CASE = {"seed": 1, "wram": {"7E0010": "07"}, "expect": {"wram": {"7E0011": "08"}}}
TASK = Task("routine", ROUTINE, read_expect({"frames": FRAMES, "cases": [CASE]}), "Answer")


@contextmanager
def _silence() -> Iterator[None]:
    """The core tells standard error what it loads."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


class _Bare:
    """asar and the core with nothing around them."""

    def __init__(self, asar: Path, core: Path, folder: Path) -> None:
        self._command = [asar, "--fix-checksum=off", folder / "bare.asm", folder / "bare.sfc"]
        self._rom = folder / "bare.sfc"
        (folder / "bare.asm").write_text(ROUTINE.replace(";@ANSWER@", CODE))
        self._core = Core(str(core))
        self._wram = noise(1)

    def __call__(self) -> None:
        self._rom.unlink(missing_ok=True)
        subprocess.run(self._command, capture_output=True, check=True)
        with _silence():
            self._core.load(padded(self._rom.read_bytes()))
        self._core.run(self._wram, FRAMES, ())


async def run() -> AsyncIterator[str]:
    tools = find_tools(models.Tools())
    if tools.asar.path is None or tools.core.path is None:
        yield f"not run: {tools.asar.reason or tools.core.reason}"
        return
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        bare = _Bare(tools.asar.path, tools.core.path, Path(folder))
        async with open_execution(tools, children=1) as execution:
            for turn in range(TURNS + 3):
                started = time.perf_counter()
                judged = await judge_answer(execution, TASK, CODE)
                between = time.perf_counter()
                bare()
                ended = time.perf_counter()
                assert judged.outcome == "correct", judged
                if turn >= 3:  # the first ones start the children and fill the tables
                    ours.append(between - started)
                    theirs.append(ended - between)
        mine, bare_s = statistics.median(ours), statistics.median(theirs)
        yield f"a one-case answer: assemble, load and {FRAMES} frames in {mine * 1000:.1f} ms ({1 / mine:.0f} a second)"
        yield f"asar and the core by themselves: {bare_s * 1000:.1f} ms"
        yield f"ratio to them: {mine / bare_s:.2f} (ideal 1, at most 1.5)"
        async with open_execution(tools) as execution:
            started = time.perf_counter()
            await asyncio.gather(*(judge_answer(execution, TASK, CODE) for _ in range(ITEMS)))
            spent = time.perf_counter() - started
        cores = os.cpu_count() or 1
        yield (
            f"{ITEMS} answers by {cores} children: {spent:.1f} s, "
            f"{spent / ITEMS / bare_s:.2f} of the same one by one (ideal {1 / cores:.2f})"
        )
