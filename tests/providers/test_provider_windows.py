"""Requests and tokens a minute, by a clock of the test's own; and what campaigns of a process share."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from backend.generation.campaigns import NewCampaign, create
from backend.generation.engine import run_campaign
from backend.providers.sharing import entrance
from backend.providers.windows import RateWindow
from backend.settings import ProviderSettings, Workspace
from tests.fixtures.words_domain import repeat, write_domain
from tests.servers.openai_server import OpenAIServer


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


async def test_no_minute_has_more_requests_than_allowed() -> None:
    clock = Clock()
    window = RateWindow(rpm=10, clock=clock)
    times = []
    for _ in range(35):
        await window.admit(1, clock.sleep)
        times.append(clock.now)
        clock.now += 0.5
    for at in times:
        assert sum(at <= other < at + 60 for other in times) <= 10
    assert times[-1] < 4 * 61, "and it does not wait longer than it must"


async def test_no_minute_has_more_tokens_than_allowed_and_what_was_used_counts() -> None:
    clock = Clock()
    window = RateWindow(tpm=1_000, clock=clock)
    spent = []
    for _ in range(30):
        ticket = await window.admit(50, clock.sleep)
        spent.append((clock.now, 100))
        window.used(ticket, 100)
        clock.now += 0.1
    for at, _ in spent:
        assert sum(tokens for other, tokens in spent if at <= other < at + 60) <= 1_000
    assert spent[-1][0] < 4 * 61


async def test_a_request_larger_than_the_limit_goes_alone() -> None:
    clock = Clock()
    window = RateWindow(tpm=100, clock=clock)
    await window.admit(500, clock.sleep)
    assert clock.now == 0
    await window.admit(1, clock.sleep)
    assert clock.now == pytest.approx(60, abs=0.1)


async def test_campaigns_of_one_process_share_the_limit_of_an_address(ws: Workspace) -> None:
    write_domain(ws.home)
    allowed = {"openai": ProviderSettings(rpm=14)}
    ws = replace(ws, settings=ws.settings.model_copy(update={"providers": allowed}))
    async with OpenAIServer(reply=repeat) as server:
        for name in ("a", "b"):
            await create(
                ws,
                NewCampaign(name, "openai", "m", 10, ("words",), base_url=server.base_url, parallel=4),
            )
        running = [asyncio.create_task(run_campaign(ws, name)) for name in ("a", "b")]
        async with asyncio.timeout(20):
            while len(server.journal) < 14:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)  # time in which more would come, if each had a window of its own
        assert len(server.journal) == 14
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        assert await ws.db.fetch_value("SELECT count(*) FROM requests WHERE state = 'sent'") == 0
        assert entrance(ws, "openai", server.base_url) is entrance(ws, "openai", server.base_url)
        assert entrance(ws, "openai", server.base_url) is not entrance(ws, "openai", "http://other")
