"""The campaign engine against a bare aiohttp client that commits each answer to SQLite, at the same latency."""

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

REQUESTS, IN_FLIGHT, LATENCY_S = 2_000, 64, 0.05

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
            bare = await _bare(url, Path(folder))
            engine, cpu = await _engine(url, Path(folder))
    finally:
        server.stdin.close()
        await server.wait()
    ideal = REQUESTS * LATENCY_S / IN_FLIGHT
    yield f"{REQUESTS} requests, {IN_FLIGHT} in flight, {LATENCY_S * 1000:.0f} ms each: ideal {ideal:.2f} s"
    yield f"bare aiohttp, each answer committed: {bare:.2f} s, {ideal / bare:.2f} of the ideal"
    yield f"the whole engine (ledger, gates, sample): {engine:.2f} s, CPU {cpu / REQUESTS * 1000:.2f} ms each"
    yield f"ratio engine/bare speed: {bare / engine:.2f} (ideal 1)"


async def _bare(url: str, folder: Path) -> float:
    database = await aiosqlite.connect(folder / "bare.db", isolation_level=None)
    await database.execute("PRAGMA journal_mode = WAL")
    await database.execute("PRAGMA synchronous = FULL")
    await database.execute("CREATE TABLE answers (id INTEGER PRIMARY KEY, raw BLOB)")
    numbers = iter(range(REQUESTS))
    started = time.monotonic()

    async def worker(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            body = {"model": "m", "messages": [{"role": "user", "content": f"question {number}"}]}
            async with session.post(f"{url}/chat/completions", json=body) as reply:
                raw = await reply.read()
            await database.execute("INSERT INTO answers VALUES (?, ?)", (number, raw))

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(worker(session) for _ in range(IN_FLIGHT)))
    seconds = time.monotonic() - started
    await database.close()
    return seconds


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
        started, cpu = time.monotonic(), time.process_time()
        ended = await run_campaign(ws, "bench")
        seconds, used = time.monotonic() - started, time.process_time() - cpu
    assert ended.state == "done", ended.error
    return seconds, used
