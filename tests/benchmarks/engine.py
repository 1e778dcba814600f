"""The campaign engine against a bare aiohttp client that commits each answer to SQLite, at the same latency.

The bare client is measured twice: each answer a commit of its own, and answers that come together sharing
one (as the engine's do); both with synchronous = FULL, as a ledger of paid work must have it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import aiosqlite

from backend.generation.campaigns import NewCampaign, create
from backend.generation.engine import run_campaign
from backend.settings import open_workspace
from backend.similarity import minhash

REQUESTS, IN_FLIGHT, LATENCY_S = 5_000, 64, 0.05

# The server has a process of its own, so that its work is not taken for the client's.
_SERVER = """
import asyncio, sys
from tests.servers.openai_server import OpenAIServer

async def main():
    async with OpenAIServer(reply=lambda p: "the answer is " + p, latency_s=float(sys.argv[1])) as server:
        print(server.base_url, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


async def run() -> AsyncIterator[str]:
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _SERVER, str(LATENCY_S)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert server.stdout is not None
    assert server.stdin is not None
    url = (await server.stdout.readline()).decode().strip()
    try:
        with tempfile.TemporaryDirectory() as folder:
            single = await _bare(url, Path(folder) / "single.db", grouped=False)
            grouped = await _bare(url, Path(folder) / "grouped.db", grouped=True)
            engine, cpu = await _engine(url, Path(folder))
    finally:
        server.stdin.close()
        await server.wait()
    ideal = REQUESTS * LATENCY_S / IN_FLIGHT
    yield f"{REQUESTS} requests, {IN_FLIGHT} in flight, {LATENCY_S * 1000:.0f} ms each: ideal {ideal:.2f} s"
    for label, (bare, bare_cpu) in (("a commit each", single), ("grouped commits", grouped)):
        yield (
            f"bare aiohttp, {label}: {bare:.2f} s, {ideal / bare:.2f} of the ideal, "
            f"CPU {bare_cpu / REQUESTS * 1000:.2f} ms each"
        )
    yield (
        f"the whole engine (ledger, gates, sample): {engine:.2f} s, {ideal / engine:.2f} of the ideal, "
        f"CPU {cpu / REQUESTS * 1000:.2f} ms each"
    )
    yield f"ratio engine/bare speed: {single[0] / engine:.2f} of a commit each, {grouped[0] / engine:.2f} of grouped"


async def _bare(url: str, path: Path, *, grouped: bool) -> tuple[float, float]:
    """(seconds, seconds of CPU)"""
    database = await aiosqlite.connect(path, isolation_level=None)
    await database.execute("PRAGMA journal_mode = WAL")
    await database.execute("PRAGMA synchronous = FULL")
    await database.execute("CREATE TABLE answers (id INTEGER PRIMARY KEY, raw BLOB)")
    numbers = iter(range(REQUESTS))
    waiting: list[tuple[int, bytes]] = []
    lock = asyncio.Lock()
    started, cpu = time.monotonic(), time.process_time()

    async def keep(number: int, raw: bytes) -> None:
        if not grouped:
            await database.execute("INSERT INTO answers VALUES (?, ?)", (number, raw))
            return
        waiting.append((number, raw))
        if len(waiting) > 1:
            async with lock:
                return
        async with lock:
            rows, waiting[:] = list(waiting), []
            await database.execute("BEGIN")
            await database.executemany("INSERT INTO answers VALUES (?, ?)", rows)
            await database.commit()

    async def worker(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            body = {"model": "m", "messages": [{"role": "user", "content": f"question {number}"}]}
            async with session.post(f"{url}/chat/completions", json=body) as reply:
                raw = await reply.read()
            await keep(number, raw)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(worker(session) for _ in range(IN_FLIGHT)))
    seconds, used = time.monotonic() - started, time.process_time() - cpu
    await database.close()
    return seconds, used


async def _engine(url: str, folder: Path) -> tuple[float, float]:
    domains = folder / "home" / "config" / "domains"
    domains.mkdir(parents=True)
    (domains / "bench.toml").write_text(
        'name = "bench"\ntitle = "Bench"\nseeds = "bench.jsonl"\nprompt = "{{ q }}"\ninstruction = "{{ q }}"\n'
    )
    # Six words of its own for each seed, so that none is a near duplicate of another.
    lines = [{"id": str(n), "q": " ".join(f"w{n}x{k}" for k in range(6))} for n in range(REQUESTS)]
    (domains / "bench.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    async with open_workspace(folder / "home") as ws:
        await create(
            ws,
            NewCampaign("bench", "openai", "m", REQUESTS, ("bench",), base_url=url, parallel=IN_FLIGHT),
        )
        minhash.warm_up()  # imports, as aiohttp's are behind the bare client
        started, cpu = time.monotonic(), time.process_time()
        ended = await run_campaign(ws, "bench")
        seconds, used = time.monotonic() - started, time.process_time() - cpu
    assert ended.state == "done", ended.error
    return seconds, used
