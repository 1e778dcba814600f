"""What a reviewer feels: a durable decision and the next card, beside many samples."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from backend.review.card import card
from backend.review.deciding import approve
from backend.review.queues import ids
from backend.settings import open_workspace
from backend.store import samples
from backend.store.samples import Filter

SAMPLES, DECISIONS = 100_000, 500


async def run() -> AsyncIterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        async with open_workspace(Path(folder)) as ws:
            for start in range(0, SAMPLES, 5_000):
                async with ws.db.transaction() as transaction:
                    for n in range(start, start + 5_000):
                        await samples.insert(
                            transaction, uid=f"u{n}", domain="asm", family=f"f{n % 97}", source="made", state="pending",
                            instruction=f"Explain instruction {n} of the routine", output=f"It loads the value {n}.",
                            input="", exact_hash=f"{n:064x}", author="bench",
                        )  # fmt: skip
            started = time.perf_counter()
            queue = await ids(ws, Filter(states=("pending",)))
            listed = time.perf_counter() - started
            times = []
            for sample_id in queue[:DECISIONS]:
                started = time.perf_counter()
                await approve(ws, sample_id)
                await card(ws, sample_id - 1)
                times.append((time.perf_counter() - started) * 1000)
            raw = []
            for n in range(DECISIONS):
                started = time.perf_counter()
                async with ws.db.transaction() as transaction:
                    await transaction.execute("UPDATE samples SET rating = 3 WHERE id = ?", (n + 1,))
                raw.append((time.perf_counter() - started) * 1000)
    p95 = statistics.quantiles(times, n=20)[-1]
    yield f"{SAMPLES} samples: the queue of all pending in {listed * 1000:.0f} ms"
    yield f"decision and next card: median {statistics.median(times):.1f} ms, p95 {p95:.1f} ms (a frame is 16 ms)"
    yield f"ratio to one bare committed update: {statistics.median(times) / statistics.median(raw):.1f} (ideal 1)"
