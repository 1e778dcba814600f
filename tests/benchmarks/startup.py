"""How long a person waits for the command line, against an interpreter that does nothing."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator

RUNS = 5


async def run() -> AsyncIterator[str]:
    bare = await _median("-c", "pass")
    for name, arguments in (("--help", ["--help"]), ("campaign --help", ["campaign", "--help"])):
        seconds = await _median("-m", "hafs_tui", *arguments)
        yield f"hafs-tui {name}: {seconds * 1000:.0f} ms, bare Python {bare * 1000:.0f} ms, ratio {seconds / bare:.1f}"


async def _median(*arguments: str) -> float:
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdout=asyncio.subprocess.DEVNULL
        )
        await process.wait()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
