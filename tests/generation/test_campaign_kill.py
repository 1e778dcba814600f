"""Kill the program at any moment, start it again: nothing accepted is lost, none is there twice, and no
complete answer is asked for again."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections import Counter
from pathlib import Path

from backend.generation.campaigns import NewCampaign, create
from backend.generation.engine import run_campaign
from backend.generation.progress import progress_of
from backend.settings import Workspace, open_workspace
from backend.store import samples
from backend.store.samples import Filter
from tests.fixtures.words_domain import repeat, write_domain
from tests.servers.openai_server import OpenAIServer

KILLS = 8


async def _run_and_kill(home: Path, after_s: float) -> bool:
    """Whether it was still working when it was killed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hafs_tui", "--home", str(home), "campaign", "run", "pilot"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await asyncio.wait_for(process.wait(), after_s)
    except TimeoutError:
        process.send_signal(signal.SIGKILL)
        await process.wait()
        return True
    return False


async def test_killed_at_random_moments_a_campaign_loses_and_doubles_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    chance = random.Random(7)
    async with OpenAIServer(reply=repeat, latency_s=0.25) as server:
        write_domain(home, rounds=1)
        async with open_workspace(home) as ws:
            await create(
                ws,
                NewCampaign(
                    name="pilot", provider="openai", model="m", target=40, domains=("words",),
                    base_url=server.base_url, parallel=2,
                ),
            )  # fmt: skip
        known: set[str] = set()
        killed = 0
        for _ in range(KILLS):
            # The moment is random on purpose: from before the first request to well inside the run.
            killed += await _run_and_kill(home, chance.uniform(0.4, 2.0))
            async with open_workspace(home) as ws:
                now = await _accepted(ws)
            assert known <= now, "a sample that was accepted before the kill is gone after it"
            known = now
        async with open_workspace(home) as ws:
            ended = await run_campaign(ws, "pilot")
            stands = await progress_of(ws, "pilot")
            accepted = await _accepted(ws)
            answered = await ws.db.fetch_all("SELECT content_key FROM requests WHERE state = 'answered'")
            unanswered = await ws.db.fetch_value("SELECT count(*) FROM requests WHERE state = 'unanswered'")
        asked = Counter(r.body["messages"][-1]["content"] for r in server.journal if r.body)
    assert killed >= KILLS // 2, "the kills came too late to prove anything"
    assert (ended.state, stands.accepted, len(accepted)) == ("done", 40, 40)
    assert max(Counter(row[0] for row in answered).values()) == 1, "a complete answer was asked for again"
    repeats = sum(count - 1 for count in asked.values())
    assert repeats <= unanswered, "a repeat that no row shows as unanswered"
    rows = [
        json.loads(line) for line in (home / "training" / "pilot" / "samples.jsonl").read_text().splitlines()
    ]
    assert sorted(row["_metadata"]["sample_id"] for row in rows) == sorted(accepted)


async def _accepted(ws: Workspace) -> set[str]:
    ids = await samples.ids(ws.db, Filter(states=("pending",)))
    return {sample.uid for sample in await samples.by_ids(ws.db, ids)}
