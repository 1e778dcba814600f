"""Queues, cards and decisions in bulk."""

from __future__ import annotations

import asyncio
import json
from array import array

import pytest

from backend.review import ReviewError, deciding
from backend.review.bulk import approve_by_policy, last_bulk, matching, reject_by_policy, undo_bulk
from backend.review.card import as_json, card, cards
from backend.review.queues import counts, first, ids, progress
from backend.settings import Workspace
from backend.store import campaigns, decisions, requests, samples
from backend.store.samples import Filter, GateRow
from tests.fixtures.made_samples import put_sample, put_samples


async def test_orders(ws: Workspace) -> None:
    scores = [0.9, 0.52, None, 0.1, 0.45]
    made = [await put_sample(ws, f"o{n}", score=score) for n, score in enumerate(scores)]
    assert list(await ids(ws, order="newest")) == made[::-1]
    assert list(await ids(ws, order="oldest")) == made
    by_doubt = [made[n] for n in (1, 4, 3, 0, 2)]
    assert list(await ids(ws, order="uncertain")) == by_doubt, "nearest to 0.5 first, without a score last"


async def test_a_random_order_is_the_seeds_and_new_samples_move_no_other(ws: Workspace) -> None:
    made = await put_samples(ws, 200)
    drawn = list(await ids(ws, order="random", seed=5))
    assert sorted(drawn) == made
    assert drawn not in (made, made[::-1], list(await ids(ws, order="random", seed=6)))
    assert list(await ids(ws, order="random", seed=5)) == drawn
    later = await put_sample(ws, "later")
    assert [i for i in await ids(ws, order="random", seed=5) if i != later] == drawn


async def test_counts_name_every_state_and_progress_counts_what_stands(ws: Workspace) -> None:
    made = await put_samples(ws, 6)
    await deciding.approve(ws, made[0])
    await deciding.reject(ws, made[1])
    await deciding.flag(ws, made[2])
    await deciding.undo(ws)
    await deciding.skip(ws, made[3])
    assert await counts(ws, Filter(states=("approved",))) == {
        "pending": 4, "approved": 1, "rejected": 1, "flagged": 0, "gated": 0,
    }  # fmt: skip
    far = await progress(ws, since=0)
    assert (far.decided, far.left) == (2, 4)
    assert far.seconds_left == pytest.approx(4 / far.per_minute * 60)
    assert (await progress(ws, since=0, reviewer="nobody")).seconds_left is None


async def test_the_beginning_of_a_queue_is_there_without_the_rest(ws: Workspace) -> None:
    for number in range(20):
        await put_sample(ws, f"word{number % 2} x{number}", score=number * 7 % 20 / 20)
    for order in ("newest", "oldest", "uncertain"):
        for filter in (Filter(), Filter(text="word1"), Filter(states=("approved",))):
            whole = await ids(ws, filter, order)
            assert await first(ws, filter, order, limit=5) == whole[:5], (order, filter)
    assert len(await ids(ws, Filter(text="word1"))) == 10
    assert await first(ws, Filter(), "random", limit=5) == array("q"), "a shuffle has no beginning of its own"


async def test_a_long_reading_that_nobody_waits_for_ends(ws: Workspace) -> None:
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    reading = asyncio.create_task(ws.db.fetch_long(endless))
    await asyncio.sleep(0.05)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await ws.db.numbers("SELECT 7") == array("q", [7])


async def test_a_policy_decides_in_batches_and_is_undone_in_one_step(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.review.bulk.BATCH", 4)
    made = await put_samples(ws, 10)
    gated = await put_sample(ws, "gated", state="gated")
    await deciding.reject(ws, made[0])
    assert await matching(ws, Filter()) == 9
    bulk = await approve_by_policy(ws, Filter(), "demo")
    assert bulk.count == 9
    assert (await counts(ws))["approved"] == 9
    log = await decisions.of_sample(ws.db, made[3])
    assert [(d.kind, d.reviewer, d.reviewer_kind) for d in log] == [("approve", "demo", "policy")]
    assert (await samples.by_id(ws.db, gated)).state == "gated"  # type: ignore[union-attr]
    assert (await approve_by_policy(ws, Filter(), "demo")).count == 0, "the same call again does nothing"

    await deciding.flag(ws, made[5])
    assert await last_bulk(ws) == bulk
    assert await undo_bulk(ws, bulk) == 9
    assert await last_bulk(ws) is None
    assert await counts(ws) == {"pending": 8, "approved": 0, "rejected": 1, "flagged": 1, "gated": 1}
    assert await undo_bulk(ws, bulk) == 0
    assert await deciding.undo(ws, 9)
    assert (await counts(ws))["pending"] == 10


async def test_a_policy_may_be_told_to_overrule_and_needs_a_name(ws: Workspace) -> None:
    made = await put_sample(ws, "a", state="gated")
    rejected = await reject_by_policy(ws, Filter(states=("gated",)), "sweep", "too short")
    assert rejected.count == 1
    assert [(d.state_before, d.reason) for d in (await card(ws, made)).decisions] == [("gated", "too short")]
    with pytest.raises(ReviewError, match="name"):
        await approve_by_policy(ws, Filter(), " ")


async def test_the_card_shows_all_that_is_known(ws: Workspace) -> None:
    async with ws.db.transaction() as transaction:
        campaign = await campaigns.insert(
            transaction, name="pilot", provider="openai", model="m", base_url=None, targets={"asm": 1},
            temperature=0.7, max_tokens=None, seed=1, parallel=1, budget_usd=None, budget_requests=None,
        )  # fmt: skip
        request = await requests.insert_sent(
            transaction, purpose="generate", content_key="k", provider="openai", model="m", prompt="{}",
            campaign_id=campaign, routing="gpu at 12 %",
        )  # fmt: skip
        await requests.record_answer(transaction, request, b"raw")
        await requests.record_usage(transaction, request, 10, 20, 0, 0.003)
        sample_id = await samples.insert(
            transaction, uid="u", domain="asm", family="f", source="generated", state="pending", instruction="i",
            input="", output="o", exact_hash="h", author="openai/m", campaign_id=campaign, request_id=request,
            provider="openai", model="m",
        )  # fmt: skip
        await samples.insert_gates(transaction, sample_id, [GateRow("length", True, 1.0, "1 characters")])
    await deciding.approve(ws, sample_id)
    bare = await put_sample(ws, "bare")
    seen, other = await cards(ws, [sample_id, 4711, bare])
    assert seen.campaign == "pilot"
    assert other.campaign is None
    assert other.provenance is None
    assert seen.provenance is not None
    assert (seen.provenance.cost_usd, seen.provenance.routing, seen.provenance.completion_tokens) == (
        0.003, "gpu at 12 %", 20,
    )  # fmt: skip
    assert [gate.name for gate in seen.gates] == ["length"]
    assert [d.kind for d in seen.decisions] == ["approve"]
    shown = json.loads(json.dumps(as_json(seen)))
    assert {"id", "campaign", "domain", "state", "instruction", "input", "output", "score", "gates", "provider",
            "model"} <= shown.keys()  # fmt: skip
