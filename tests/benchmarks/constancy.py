"""A campaign of 100,000 accepted samples: its speed and memory at the end against the start, and what looking
for a duplicate among all of them costs. The provider answers at once, so what is measured is ours alone.
`HAFS_BENCH_SAMPLES` makes it another number.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil

from backend.generation.campaigns import NewCampaign, create
from backend.generation.engine import run_campaign
from backend.providers.base import ChatRequest, RawReply
from backend.providers.openai_compatible import OpenAICompatible
from backend.quality.duplicates import find_duplicate
from backend.settings import Workspace, open_workspace
from backend.similarity import minhash
from backend.similarity.fingerprint import fingerprint

SAMPLES = int(os.environ.get("HAFS_BENCH_SAMPLES", "100000"))
LOOKUPS = 300
MIB = 2**20


def words(number: int, count: int = 40) -> str:
    """Words that no other number has many of."""
    chance = random.Random(number)
    return " ".join(f"w{chance.randrange(50_000)}" for _ in range(count))


class Instant(OpenAICompatible):
    """Answers each question with words of its own, without a network."""

    async def send(self, request: ChatRequest) -> RawReply:
        await asyncio.sleep(0)
        text = words(int(request.messages[-1].content))
        answer = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "model": "m"}
        return RawReply(json.dumps(answer).encode())


async def run() -> AsyncIterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        domains = Path(folder) / "config" / "domains"
        domains.mkdir(parents=True)
        (domains / "many.toml").write_text(
            'name = "many"\ntitle = "Many"\nseeds = "many.jsonl"\nprompt = "{{ id }}"\ninstruction = "Say {{ id }}"\n'
        )
        (domains / "many.jsonl").write_text("".join(f'{{"id": "{n}"}}\n' for n in range(SAMPLES)))
        async with open_workspace(Path(folder)) as ws:
            async for line in _measured(ws):
                yield line


async def _measured(ws: Workspace) -> AsyncIterator[str]:
    await create(ws, NewCampaign("many", "openai", "m", SAMPLES, ("many",), parallel=64))
    minhash.warm_up()
    provider = Instant("http://127.0.0.1:9")
    memory: list[tuple[float, float]] = []

    async def watch() -> None:
        process = psutil.Process()
        while True:
            memory.append((time.time(), process.memory_info().rss / MIB))
            await asyncio.sleep(1)

    watching = asyncio.create_task(watch())
    cpu = time.process_time()
    ended = await run_campaign(ws, "many", provider=provider)
    used = time.process_time() - cpu
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await provider.aclose()
    rows = await ws.db.fetch_all("SELECT created_at FROM samples WHERE state = 'pending' ORDER BY id")
    times = [row[0] for row in rows]
    tenth = len(times) // 10
    # The first hundredth fills caches; the tenth after it is the start.
    skip = len(times) // 100
    start = tenth / (times[skip + tenth] - times[skip])
    end = tenth / (times[-1] - times[-1 - tenth])
    yield f"{len(times)} samples accepted ({ended.state}), CPU {used / len(times) * 1000:.2f} ms each"
    yield f"first tenth {start:.0f} a second, last tenth {end:.0f}: ratio {end / start:.2f} (wanted: 0.9)"
    early = next(mib for at, mib in memory if at >= times[skip + tenth])
    yield f"memory {early:.0f} MiB after a tenth, {memory[-1][1]:.0f} MiB at the end (wanted: within 150)"
    spent = []
    for number in range(LOOKUPS):
        known_by = fingerprint(f"Say {number}\n" + words(SAMPLES + number if number % 2 else number))
        started = time.perf_counter()
        await ws.db.write(lambda transaction, k=known_by: find_duplicate(transaction, k, 0.7))  # type: ignore[misc]
        spent.append(time.perf_counter() - started)
    spent.sort()
    yield (
        f"duplicate lookup: median {spent[LOOKUPS // 2] * 1000:.2f} ms, "
        f"95 % within {spent[int(LOOKUPS * 0.95)] * 1000:.2f} ms (wanted: 2)"
    )
