"""Hybrid campaigns: the policy with its thresholds, and where real requests went and why."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from backend.generation.campaigns import NewCampaign, create, routing_decisions
from backend.generation.engine import CampaignError, run_campaign
from backend.generation.progress import progress_of
from backend.generation.routing import choose
from backend.settings import HybridSettings, ProviderSettings, Workspace
from backend.store import samples
from backend.store.clock import now
from backend.store.samples import Filter
from remote import Reading
from tests.fixtures.words_domain import repeat, write_domain
from tests.servers.faults import Fault, status
from tests.servers.ollama_server import OllamaServer
from tests.servers.openai_server import OpenAIServer

SETTINGS = HybridSettings()
AT = 1_000.0


def gpu(busy: float | None, **more: float) -> Reading:
    found = Reading("box", 0, "card", busy, 4_000.0, 16_000.0, 60.0, 100.0, at=AT)
    return replace(found, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reading", "side", "words"),
    [
        (gpu(0), "local", "below 30"),
        (gpu(29.9), "local", "below 30"),
        (gpu(60.1), "api", "above 60"),
        (gpu(100), "api", "above 60"),
        (None, "api", "no reading"),
        (gpu(None), "api", "no reading"),
        (gpu(10, at=AT - 16), "api", "16 s old"),
        (gpu(10, stale_s=20), "api", "20 s old"),
        (gpu(10, temperature_c=86), "api", "86 °C"),
        (gpu(10, temperature_c=85), "local", "below"),
        (gpu(10, memory_used_mib=15_300), "api", "video memory"),
        (gpu(10, memory_used_mib=15_200), "local", "below"),
    ],
)
def test_the_policy_at_its_thresholds(reading: Reading | None, side: str, words: str) -> None:
    choice = choose(reading, 1, AT, SETTINGS)
    assert (choice.side, words in choice.reason) == (side, True), choice.reason


@pytest.mark.parametrize(("busy", "share"), [(30, 1.0), (37.5, 0.75), (45, 0.5), (52.5, 0.25), (60, 0.0)])
def test_between_the_thresholds_requests_are_shared_in_proportion_and_always_alike(
    busy: float, share: float
) -> None:
    sides = [choose(gpu(busy), n, AT, SETTINGS).side for n in range(1, 1001)]
    assert sides.count("local") / 1000 == pytest.approx(share, abs=0.01)
    assert sides == [choose(gpu(busy), n, AT, SETTINGS).side for n in range(1, 1001)]
    first = sides[:20].count("local") / 20
    assert first == pytest.approx(share, abs=0.1), "spread evenly, not in a block"


def test_a_policy_that_is_switched_off_sends_everything_to_the_api() -> None:
    choice = choose(gpu(0), 1, AT, HybridSettings(enabled=False))
    assert (choice.side, "switched off" in choice.reason) == ("api", True)


async def hybrid(ws: Workspace, api: OpenAIServer, ollama: OllamaServer, target: int = 24) -> Workspace:
    """A workspace whose campaign "h" has the two servers."""
    write_domain(ws.home)
    reached = {"ollama": ProviderSettings(base_url=ollama.base_url)}
    found = replace(ws, settings=ws.settings.model_copy(update={"providers": reached}))
    await create(
        found,
        NewCampaign(
            "h", "openai", "m", target, ("words",), base_url=api.base_url, local="ollama:small", parallel=2
        ),
    )
    return found


async def test_each_request_goes_where_its_reading_says_and_the_decision_is_kept(ws: Workspace) -> None:
    seen = [gpu(10), gpu(90), None]
    asked = 0

    def readings() -> Reading | None:
        nonlocal asked
        asked += 1
        found = seen[asked % 3]
        return None if found is None else replace(found, at=now())

    async with OpenAIServer(reply=repeat) as api, OllamaServer(reply=repeat, models=("small",)) as ollama:
        ws = await hybrid(ws, api, ollama)
        ended = await run_campaign(ws, "h", readings=readings)
        counts = (len(ollama.paid), len(api.paid))
    decisions = await routing_decisions(ws, "h")
    assert (ended.state, (await progress_of(ws, "h")).accepted) == ("done", 24)
    local = [d for d in decisions if d.provider == "ollama"]
    assert counts == (len(local), len(decisions) - len(local))
    assert counts[0] == 8
    for decision in decisions:
        assert decision.routing is not None
        read = decision.routing["reading"]
        busy = None if read is None else read["utilization"]
        assert (decision.routing["to"], decision.model) == (
            ("local", "small") if busy == 10 else ("api", "m")
        )
        assert decision.reason
    assert "no reading" in " ".join(d.reason for d in decisions)
    made = await samples.by_ids(ws.db, await samples.ids(ws.db, Filter(campaign="h")))
    assert {(s.provider, s.model) for s in made} == {("ollama", "small"), ("openai", "m")}


async def test_a_local_model_that_is_not_there_is_left_and_the_api_goes_on(ws: Workspace) -> None:
    async with OpenAIServer(reply=repeat) as api, OllamaServer(reply=repeat, models=("other",)) as ollama:
        ws = await hybrid(ws, api, ollama, 8)
        ended = await run_campaign(ws, "h", readings=lambda: replace(gpu(0), at=now()))
        assert len(ollama.journal) <= 4, "those in flight, and no more"
    assert (ended.state, ended.error) == ("done", None)
    reasons = [d.reason for d in await routing_decisions(ws, "h") if d.provider == "openai"]
    assert all("the local is off" in reason and "small" in reason for reason in reasons)


async def test_an_api_whose_key_is_wrong_leaves_the_work_to_the_gpu(ws: Workspace) -> None:
    busy = iter([90.0])

    async with (
        OpenAIServer(reply=repeat, script=lambda _: status(401, message="bad key")) as api,
        OllamaServer(reply=repeat, models=("small",)) as ollama,
    ):
        ws = await hybrid(ws, api, ollama, 6)
        ended = await run_campaign(ws, "h", readings=lambda: replace(gpu(next(busy, 99.0)), at=now()))
    assert (ended.state, (await progress_of(ws, "h")).accepted) == ("done", 6)


async def test_a_question_that_the_gpu_did_not_answer_is_asked_of_the_api(ws: Workspace) -> None:
    async with (
        OpenAIServer(reply=repeat) as api,
        OllamaServer(reply=repeat, models=("small",), script=lambda _: Fault("close")) as ollama,
    ):
        ws = await hybrid(ws, api, ollama, 2)
        ended = await run_campaign(ws, "h", readings=lambda: replace(gpu(0), at=now()))
        assert (ended.state, len(api.paid)) == ("done", 2)
    assert "gave no answer (connection)" in " ".join(d.reason for d in await routing_decisions(ws, "h"))


@pytest.mark.parametrize("local", ["small", "ollama:", "hub:x"])
async def test_a_local_model_is_named_with_its_scheme(ws: Workspace, local: str) -> None:
    write_domain(ws.home)
    with pytest.raises(CampaignError, match="expected ollama:MODEL"):
        await create(ws, NewCampaign("h", "openai", "m", 5, ("words",), local=local))


def test_a_decision_is_json_with_its_reading() -> None:
    kept = json.loads(choose(gpu(45), 3, AT, SETTINGS).as_json())
    assert (kept["reading"]["utilization"], kept["reading"]["host"]) == (45, "box")
