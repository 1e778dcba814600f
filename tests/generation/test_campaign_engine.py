"""Campaigns against a real HTTP server that fails in all the ways that providers do."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import pytest

from backend.generation import campaigns as steering
from backend.generation.campaigns import NewCampaign, create
from backend.generation.comparing import compare
from backend.generation.engine import CampaignError, run_campaign
from backend.generation.progress import failures, progress_of
from backend.providers.sharing import entrance
from backend.settings import SettingsError, Workspace
from backend.store import leases, requests, samples
from backend.store.samples import Filter
from tests.fixtures.words_domain import repeat, write_domain
from tests.servers.faults import Fault, in_order, status
from tests.servers.openai_server import OpenAIServer


async def campaign(ws: Workspace, name: str, url: str, target: int = 12, **more: object) -> None:
    write_domain(ws.home)
    values = {
        "provider": "openai",
        "model": "m",
        "target": target,
        "domains": ("words",),
        "base_url": url,
    } | more
    await create(ws, NewCampaign(name=name, **values))  # type: ignore[arg-type]


async def test_a_campaign_reaches_its_target_and_its_file_holds_just_the_accepted(ws: Workspace) -> None:
    async with OpenAIServer(reply=repeat) as server:
        await campaign(ws, "pilot", server.base_url)
        ended = await run_campaign(ws, "pilot")
    stands = await progress_of(ws, "pilot")
    assert (ended.state, stands.accepted, stands.spent.requests) == ("done", 12, 12)
    rows = [json.loads(line) for line in (ws.training / "pilot" / "samples.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    assert all(set(row) == {"instruction", "output", "_metadata"} for row in rows)
    assert all(row["output"].startswith("the word is ") for row in rows)
    assert "Progress: 12/12 words samples" in (ws.logs / "campaign_pilot.log").read_text()


async def test_two_campaigns_at_once_never_accept_the_same_sample(ws: Workspace) -> None:
    async with OpenAIServer(reply=repeat) as server:
        await campaign(ws, "a", server.base_url, 20)
        await campaign(ws, "b", server.base_url, 20)
        await asyncio.gather(run_campaign(ws, "a"), run_campaign(ws, "b"))
    accepted = await samples.by_ids(ws.db, await samples.ids(ws.db, Filter(states=("pending",))))
    assert len(accepted) == 40
    assert max(Counter((s.instruction, s.output) for s in accepted).values()) == 1
    first, second = await compare(ws, "a", "b")
    assert first.accepted == second.accepted == 20
    assert first.duplicates + second.duplicates == first.judged + second.judged - 40


async def test_wrong_answers_are_kept_with_the_gate_and_its_reason(ws: Workspace) -> None:
    def half_wrong(prompt: str) -> str:
        return repeat(prompt) if "lon" in prompt or "mat" in prompt else "no idea"

    async with OpenAIServer(reply=half_wrong) as server:
        await campaign(ws, "half", server.base_url, 20)
        ended = await run_campaign(ws, "half")
    stands = await progress_of(ws, "half")
    assert (ended.state, stands.accepted) == ("done", 20)
    gated = await samples.by_ids(ws.db, await samples.ids(ws.db, Filter(states=("gated",))))
    assert gated
    for sample in gated:
        results = {gate.name: gate for gate in await samples.gates(ws.db, sample.id)}
        refused = [gate for gate in results.values() if gate.passed is False]
        assert len(refused) == 1
        assert refused[0].reason
        if sample.output == "no idea":
            assert refused[0].name == "reference"
            assert results["duplicates"].passed is None, "what comes after a refusal was not run, not passed"


async def test_every_repeat_that_the_server_saw_is_a_row_of_ours(ws: Workspace) -> None:
    faults = [
        status(429, retry_after="0"), status(429), status(503), Fault("cut"), Fault("close"), Fault("bad_json"),
        Fault("html"), Fault("empty"), Fault("truncation"), Fault("refusal"), Fault("not_utf8"), status(500),
    ]  # fmt: skip
    async with OpenAIServer(reply=repeat, script=in_order(*faults)) as server:
        await campaign(ws, "faulty", server.base_url, 30)
        ended = await run_campaign(ws, "faulty")
        sent = len(server.paid)
    stands = await progress_of(ws, "faulty")
    assert (ended.state, stands.accepted) == ("done", 30)
    assert stands.spent.requests == sent
    assert stands.spent.answered == 30
    kinds = {failure.error_kind for failure in await failures(ws, "faulty", 100)}
    assert {"rate_limit", "truncated", "refused", "unparsable"} <= kinds
    possibly_charged = [f for f in await failures(ws, "faulty", 100) if f.state == "unanswered"]
    assert possibly_charged, "a connection that was cut may have been charged, and is listed so"
    assert all("may have been charged" in (f.error_message or "") for f in possibly_charged)


async def test_a_wrong_key_stops_the_campaign_at_once_with_one_clear_message(ws: Workspace) -> None:
    async with OpenAIServer(reply=repeat, script=lambda _: status(401, message="bad key")) as server:
        await campaign(ws, "locked", server.base_url, parallel=1)
        ended = await run_campaign(ws, "locked")
        assert len(server.journal) == 1
    assert ended.state == "failed"
    assert "OPENAI_API_KEY" in (ended.error or "") or "key" in (ended.error or "")


async def test_a_budget_of_requests_pauses_and_a_later_run_goes_on(ws: Workspace) -> None:
    async with OpenAIServer(reply=repeat) as server:
        await campaign(ws, "thrifty", server.base_url, 12, budget_requests=5, parallel=1)
        ended = await run_campaign(ws, "thrifty")
    assert ended.state == "paused"
    assert "budget of 5 requests" in (ended.error or "")
    assert (await progress_of(ws, "thrifty")).accepted == 5


async def test_seeds_that_run_out_end_the_campaign_and_say_so(ws: Workspace) -> None:
    async with OpenAIServer(reply=lambda _: "never right") as server:
        write_domain(ws.home, rounds=1, words=6)
        await create(
            ws,
            NewCampaign(
                name="short",
                provider="openai",
                model="m",
                target=4,
                domains=("words",),
                base_url=server.base_url,
            ),
        )
        ended = await run_campaign(ws, "short")
    assert ended.state == "done"
    assert "words 0/4" in (ended.error or "")
    assert (await progress_of(ws, "short")).domains[0].exhausted


async def test_pausing_lets_what_is_in_flight_finish_and_nothing_is_asked_twice(ws: Workspace) -> None:
    async with OpenAIServer(reply=repeat, latency_s=0.02) as server:
        await campaign(ws, "slow", server.base_url, 30, parallel=2)
        running = asyncio.create_task(run_campaign(ws, "slow"))
        async with asyncio.timeout(20):
            while (await progress_of(ws, "slow")).accepted < 5:
                await asyncio.sleep(0.01)
        await steering.pause(ws, "slow")
        paused = await running
        assert paused.state == "paused"
        between = await progress_of(ws, "slow")
        assert 5 <= between.accepted < 30
        assert between.spent.answered == between.spent.requests, "what was in flight was let finish"
        ended = await run_campaign(ws, "slow")
        asked = Counter(r.body["messages"][-1]["content"] for r in server.journal if r.body)
    assert (ended.state, (await progress_of(ws, "slow")).accepted) == ("done", 30)
    assert max(asked.values()) == 1


async def test_a_stored_answer_is_judged_after_a_crash_without_asking_again(ws: Workspace) -> None:
    async with OpenAIServer(reply=repeat) as server:
        await campaign(ws, "again", server.base_url, 6, parallel=1)
        await run_campaign(ws, "again")
        # As a crash between the stored answer and its judgement would have left it.
        async with ws.db.transaction() as transaction:
            last = (await samples.ids(transaction, Filter()))[0]
            sample = await samples.by_id(transaction, last)
            assert sample is not None
            for table in ("gates", "revisions", "signatures"):
                await transaction.execute(f"DELETE FROM {table} WHERE sample_id = ?", (last,))
            await transaction.execute("DELETE FROM samples WHERE id = ?", (last,))
            await transaction.execute("UPDATE requests SET judged = 0 WHERE id = ?", (sample.request_id,))
            await transaction.execute("UPDATE campaign_domains SET accepted = accepted - 1")
            await transaction.execute("UPDATE campaigns SET state = 'running'")
        before = len(server.journal)
        ended = await run_campaign(ws, "again")
        assert len(server.journal) == before
    assert (ended.state, (await progress_of(ws, "again")).accepted) == ("done", 6)


async def test_an_answer_to_a_question_that_the_domain_asks_no_more_becomes_no_sample(ws: Workspace) -> None:
    async with OpenAIServer(reply=repeat) as server:
        await campaign(ws, "moved", server.base_url, 1, parallel=1)
        await run_campaign(ws, "moved")
        # As a crash before the judgement leaves it; then the seeds were edited.
        async with ws.db.transaction() as transaction:
            for table in ("gates", "revisions", "signatures", "samples"):
                await transaction.execute(f"DELETE FROM {table}")
            await transaction.execute("UPDATE requests SET judged = 0")
            await transaction.execute("UPDATE campaign_domains SET accepted = 0")
            await transaction.execute("UPDATE campaigns SET state = 'running'")
        write_domain(ws.home, words=7)
        ended = await run_campaign(ws, "moved")
    kept = await samples.by_ids(ws.db, await samples.ids(ws.db, Filter()))
    assert ended.state == "done"
    assert [sample.state for sample in kept] == ["pending"]
    assert all(sample.output == sample.extra["reference"] for sample in kept)
    assert [failure.error_kind for failure in await failures(ws, "moved")] == ["stale"]


async def test_a_pause_does_not_wait_for_what_the_provider_asked_for_and_loses_no_question(
    ws: Workspace,
) -> None:
    busy = [status(429, retry_after="3600") for _ in range(2)]
    async with OpenAIServer(reply=repeat, script=in_order(*busy)) as server:
        await campaign(ws, "patient", server.base_url, 6, parallel=2)
        write_domain(ws.home, rounds=1, words=6)
        running = asyncio.create_task(run_campaign(ws, "patient"))
        async with asyncio.timeout(20):
            while (await progress_of(ws, "patient")).spent.failed < 2:
                await asyncio.sleep(0.01)
            await steering.pause(ws, "patient")
            assert (await running).state == "paused"
        ended = await run_campaign(ws, "patient")
    assert (ended.state, ended.error) == ("done", None), "no seed was used up by the refusals"
    assert (await progress_of(ws, "patient")).accepted == 6


async def test_a_template_that_cannot_be_filled_fails_the_campaign_by_its_name(ws: Workspace) -> None:
    async with OpenAIServer(reply=repeat) as server:
        await campaign(ws, "typo", server.base_url)
        file = ws.home / "config" / "domains" / "words.toml"
        file.write_text(file.read_text().replace("{{ word }}", "{{ wort }}"))
        with pytest.raises(SettingsError, match="wort"):
            await run_campaign(ws, "typo")
    stands = (await progress_of(ws, "typo")).campaign
    assert (stands.state, "wort" in (stands.error or "")) == ("failed", True)


async def test_only_one_process_runs_a_campaign(ws: Workspace) -> None:
    async with OpenAIServer(reply=repeat) as server:
        await campaign(ws, "mine", server.base_url)
        async with leases.hold(ws.db, "campaign:mine"):
            with pytest.raises(leases.LeaseHeldError, match="campaign:mine"):
                await run_campaign(ws, "mine")
        assert not server.journal


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"provider": "openapi"}, "no provider"),
        ({"domains": ("asn",)}, "no domain asn"),
        ({"target": 0}, "cannot be divided"),
        ({"name": "../up"}, "cannot name"),
        ({"name": "datasets"}, "folder of the workspace"),
        ({"temperature": 3.0}, "expected 0 to 2"),
        ({"budget_usd": -1.0}, "more than 0"),
    ],
)
async def test_a_campaign_that_cannot_be_is_refused_before_anything_is_stored(
    ws: Workspace, change: dict[str, object], words: str
) -> None:
    write_domain(ws.home)
    values = {"name": "x", "provider": "openai", "model": "m", "target": 5, "domains": ("words",)} | change
    with pytest.raises(CampaignError, match=words):
        await create(ws, NewCampaign(**values))  # type: ignore[arg-type]
    assert await ws.db.fetch_value("SELECT count(*) FROM campaigns") == 0


async def test_the_ledger_has_the_row_before_the_server_has_the_request(ws: Workspace) -> None:
    seen: list[int] = []

    async with OpenAIServer(reply=repeat, latency_s=0.05) as server:
        await campaign(ws, "first", server.base_url, 3, parallel=1)
        running = asyncio.create_task(run_campaign(ws, "first"))
        async with asyncio.timeout(20):
            while not running.done():
                received = len(server.journal)
                rows = await ws.db.fetch_value("SELECT count(*) FROM requests")
                seen.append(rows - received)
                await asyncio.sleep(0.005)
        await running
    assert min(seen) >= 0
    assert (await requests.spent(ws.db, 1)).answered == 3


async def test_a_campaign_that_is_done_goes_on_to_a_higher_target(ws: Workspace) -> None:
    async with OpenAIServer(reply=repeat) as server:
        await campaign(ws, "more", server.base_url, 6)
        assert (await run_campaign(ws, "more")).state == "done"
        with pytest.raises(CampaignError, match="name a higher one"):
            await steering.retarget(ws, "more", 6)
        assert (await steering.retarget(ws, "more", 15)).state == "paused"
        ended = await run_campaign(ws, "more")
        assert (ended.state, ended.target, (await progress_of(ws, "more")).accepted) == ("done", 15, 15)
        assert len(server.paid) == 15, "nothing was asked again"
        copy = await steering.clone(ws, "more", "again")
    assert (copy.state, copy.target, copy.model, copy.seed) == ("created", 15, "m", ended.seed)


async def test_weights_share_the_target(ws: Workspace) -> None:
    for name in ("words", "asmlike"):
        write_domain(ws.home, name)
    weights = {"words": 1.0, "asmlike": 3.0}
    await create(ws, NewCampaign("w", "openai", "m", 20, ("words", "asmlike"), weights=weights))
    assert {d.domain: d.target for d in (await progress_of(ws, "w")).domains} == {"words": 5, "asmlike": 15}
    with pytest.raises(CampaignError, match="above 0"):
        await create(ws, NewCampaign("z", "openai", "m", 20, ("words",), weights={"words": 0.0}))


async def test_the_higher_priority_goes_first_where_a_provider_has_few_places(ws: Workspace) -> None:
    async with OpenAIServer(reply=repeat, latency_s=0.02) as server:
        way = entrance(ws, "openai", server.base_url)
        way.limit.limit = way.limit.most = 1
        await campaign(ws, "low", server.base_url, 12, parallel=2)
        await campaign(ws, "high", server.base_url, 12, parallel=2, priority=5)
        await asyncio.gather(run_campaign(ws, "low"), run_campaign(ws, "high"))
        order = await ws.db.fetch_all(
            "SELECT name FROM requests JOIN campaigns ON campaigns.id = campaign_id ORDER BY requests.ended_at"
        )
    places = {name: [n for n, row in enumerate(order) if row[0] == name] for name in ("low", "high")}
    assert sum(places["high"]) / len(places["high"]) < sum(places["low"]) / len(places["low"])
