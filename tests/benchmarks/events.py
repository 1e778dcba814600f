"""From the moment a job writes an event to the moment its row is there, on the local host."""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from backend.hosts.launching import launch_command
from backend.hosts.mirror import mirror
from backend.settings import open_workspace

EVENTS = 200

_JOB = f"""
import os, time
from pathlib import Path
from backend.contract.events import EventWriter, Progress
with EventWriter(Path(os.environ["HAFS_EVENTS"])) as writer:
    for n in range({EVENTS}):
        writer.emit(Progress(what="bench", done=n, total={EVENTS}))
        time.sleep(0.02)
"""


async def run() -> AsyncIterator[str]:
    delays: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        async with open_workspace(Path(folder)) as ws:
            job = await launch_command(ws, "local", [sys.executable, "-c", _JOB], cwd=str(Path.cwd()))
            following = asyncio.create_task(mirror(ws, job.id))
            seen = 0
            while not following.done():
                rows = await ws.db.fetch_all(
                    "SELECT seq, at FROM events WHERE job_id = ? AND seq > ?", (job.id, seen)
                )
                now = time.time()
                for row in rows:
                    seen = row["seq"]
                    delays.append((now - row["at"]) * 1000)
                await asyncio.sleep(0.002)
            ended = await following
    assert (ended.state, len(delays)) == ("done", EVENTS), (ended, len(delays))
    p95 = statistics.quantiles(delays, n=20)[-1]
    median = statistics.median(delays)
    yield f"{EVENTS} events, each once, from write to row: median {median:.0f} ms, p95 {p95:.0f} ms (bar 150 ms)"
