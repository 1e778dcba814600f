"""How the limit on what is in flight moves, and how failures are repeated: with a clock of the test's own, and
then against a server that really refuses."""

from __future__ import annotations

import asyncio

import pytest

from backend.providers import ProviderError, RawReply, ask
from backend.providers.base import FailureKind
from backend.providers.limits import COOL_DOWN_S, AdaptiveLimit, RetryPolicy, with_retries
from tests.providers.places import place
from tests.servers.faults import every, status


class Clock:
    """Time that passes only where someone sleeps or the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def failure(kind: FailureKind, retry_after_s: float | None = None) -> ProviderError:
    return ProviderError(kind, "it failed.", "openai", retry_after_s)


async def once(limit: AdaptiveLimit, error: ProviderError | None = None) -> None:
    async with limit.slot():
        await asyncio.sleep(0)
        if error is not None:
            raise error


async def round_of(limit: AdaptiveLimit, error: ProviderError | None = None) -> None:
    """As many at once as the limit lets in."""
    calls = (once(limit, error) for _ in range(int(limit.limit)))
    await asyncio.gather(*calls, return_exceptions=True)


async def test_it_doubles_until_refused_then_grows_by_one() -> None:
    clock = Clock()
    limit = AdaptiveLimit(64, 4, clock=clock, sleep=clock.sleep)
    seen = []
    for _ in range(3):
        await round_of(limit)
        seen.append(limit.limit)
    assert seen == [8, 16, 32]
    await round_of(limit, failure("rate_limit"))
    assert limit.limit == pytest.approx(25.6)
    await round_of(limit)
    assert limit.limit == pytest.approx(25.6), "it must not grow in the cool-down"
    clock.now += COOL_DOWN_S
    await round_of(limit)
    assert limit.limit == pytest.approx(26.6)


async def test_a_burst_shrinks_once_and_the_next_one_again() -> None:
    clock = Clock()
    limit = AdaptiveLimit(64, 20, clock=clock, sleep=clock.sleep)
    for _ in range(3):
        await round_of(limit, failure("overloaded"))
    assert (limit.limit, limit.shrinks) == (16, 1)
    clock.now += COOL_DOWN_S
    await round_of(limit, failure("rate_limit"))
    assert (limit.limit, limit.shrinks) == (pytest.approx(12.8), 2)


@pytest.mark.parametrize("kind", ["server", "timeout", "connection", "refused", "bad_request"])
async def test_other_failures_never_shrink(kind: FailureKind) -> None:
    limit = AdaptiveLimit(64, 8)
    for _ in range(5):
        await round_of(limit, failure(kind))
    assert limit.limit == 8


async def test_it_never_falls_below_one_nor_passes_most() -> None:
    clock = Clock()
    limit = AdaptiveLimit(6, 4, clock=clock, sleep=clock.sleep)
    for _ in range(5):
        await round_of(limit)
    assert limit.limit == 6
    for _ in range(30):
        clock.now += COOL_DOWN_S
        await round_of(limit, failure("rate_limit"))
    assert limit.limit == 1


async def test_a_limit_that_is_not_reached_does_not_grow() -> None:
    limit = AdaptiveLimit(64, 8)
    for _ in range(100):
        await once(limit)
    assert limit.limit == 8


async def test_nothing_is_sent_before_the_provider_said() -> None:
    clock = Clock()
    limit = AdaptiveLimit(64, 4, clock=clock, sleep=clock.sleep)
    with pytest.raises(ProviderError):
        await once(limit, failure("rate_limit", retry_after_s=30))
    async with limit.slot():
        assert clock.now == 30


async def test_waiting_is_first_come_first_served_and_cancelling_frees_the_place() -> None:
    limit = AdaptiveLimit(1, 1)
    order: list[int] = []

    async def call(number: int) -> None:
        async with limit.slot():
            order.append(number)

    async with limit.slot():
        calls = [asyncio.ensure_future(call(i)) for i in range(4)]
        await asyncio.sleep(0)
        calls[1].cancel()
        await asyncio.sleep(0)
        assert (order, limit.in_flight) == ([], 1)
    await asyncio.gather(*calls, return_exceptions=True)
    assert (order, limit.in_flight) == ([0, 2, 3], 0)


async def test_each_kind_of_failure_has_a_budget_of_its_own() -> None:
    clock = Clock()
    script: list[FailureKind] = ["rate_limit", "unparsable", "server", "rate_limit", "empty", "timeout"]
    told: list[str] = []

    async def call() -> str:
        if script:
            raise failure(script.pop(0))
        return "done"

    policy = RetryPolicy(rate=2, server=2, output=2)
    result = await with_retries(
        call,
        policy,
        sleep=clock.sleep,
        chance=lambda: 1.0,
        on_repeat=lambda error, _wait_s: told.append(error.kind),
    )
    assert result == "done"
    assert told == ["rate_limit", "unparsable", "server", "rate_limit", "empty", "timeout"]
    assert clock.slept == [1, 0, 1, 2, 0, 2]


@pytest.mark.parametrize(
    ("kind", "attempts"),
    [("rate_limit", 3), ("server", 2), ("unparsable", 4), ("auth", 1), ("unknown_model", 1), ("refused", 1)],
)
async def test_a_spent_budget_raises_the_last_failure(kind: FailureKind, attempts: int) -> None:
    calls = 0

    async def call() -> None:
        nonlocal calls
        calls += 1
        raise failure(kind)

    with pytest.raises(ProviderError) as caught:
        await with_retries(call, RetryPolicy(rate=2, server=1, output=3), sleep=Clock().sleep)
    assert (caught.value.kind, calls) == (kind, attempts)


async def test_the_wait_is_never_less_than_the_provider_asked_for() -> None:
    policy = RetryPolicy(first_wait_s=1, longest_wait_s=8)
    assert policy.wait_s(failure("rate_limit", 30), 0, 0.0) == 30
    assert [policy.wait_s(failure("server"), n, 1.0) for n in range(6)] == [1, 2, 4, 8, 8, 8]
    assert policy.wait_s(failure("server"), 1, 0.0) == 1


async def test_against_a_server_with_room_for_six_everything_is_answered() -> None:
    """60 requests, every tenth a 503, and never more in flight than the server lets in for long."""
    async with place("openai", capacity=6, latency_s=0.02, script=every(10, status(500))) as (
        server,
        provider,
    ):
        limit = AdaptiveLimit(32, 4)
        policy = RetryPolicy(rate=30, first_wait_s=0.02, longest_wait_s=0.1)

        async def call(number: int) -> RawReply:
            async def attempt() -> RawReply:
                async with limit.slot():
                    return await provider.send(ask("test-model", f"number {number}"))

            return await with_retries(attempt, policy)

        raws = await asyncio.gather(*(call(i) for i in range(60)))
        texts = [provider.parse(raw).text for raw in raws]
        repeats = len(server.paid) - 60
        refused = sum(1 for r in server.paid if not r.answered)
    assert texts == [f"You said: number {i}" for i in range(60)]
    assert repeats == refused, "each repeat is a request that was not answered"
    assert limit.shrinks == 1
