"""What each provider makes of each fault, through the real SDK over real HTTP: the kind of failure, what may
be retried, and that one `send` is one request in the server's own journal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

import pytest

from backend.providers import ProviderError, ProviderKind, RawReply, ask, complete
from tests.providers.places import KINDS, place
from tests.servers.faults import Fault, always, in_order, status

pytestmark = pytest.mark.parametrize("kind", KINDS)

SENDING: list[tuple[Fault, str]] = [
    (status(400), "bad_request"),
    (status(401), "auth"),
    (status(403), "auth"),
    (status(404), "unknown_model"),
    (status(429), "rate_limit"),
    (status(500), "server"),
    (status(502), "server"),
    (status(503), "overloaded"),
    (status(529), "overloaded"),
    (Fault("html", 502), "server"),  # as proxies say it
    (Fault("html", 503), "overloaded"),
    (Fault("close"), "connection"),
    (Fault("cut"), "connection"),
]
READING: list[tuple[Fault, str]] = [
    (Fault("html"), "unparsable"),
    (Fault("empty"), "unparsable"),
    (Fault("bad_json"), "unparsable"),
    (Fault("list"), "unparsable"),
    (Fault("not_utf8"), "unparsable"),
    (Fault("huge"), "unparsable"),
    (Fault("no_end"), "unparsable"),
    (Fault("truncation"), "truncated"),
    (Fault("no_text"), "empty"),
    (Fault("refusal"), "refused"),
]


def label(case: object) -> str:
    return f"{case.what}{case.status}" if isinstance(case, Fault) else str(case)


@pytest.mark.parametrize(("fault", "expected"), SENDING, ids=label)
async def test_no_reply_is_a_named_failure_after_one_request(
    kind: ProviderKind, fault: Fault, expected: str
) -> None:
    async with place(kind, script=always(fault)) as (server, provider):
        with pytest.raises(ProviderError) as caught:
            await provider.send(ask("test-model", "Hello there"))
        assert len(server.paid) == 1
    error = caught.value
    assert (error.kind, error.provider) == (expected, kind)
    assert error.stops_provider == (expected in ("auth", "unknown_model"))
    assert error.retryable == (expected in ("rate_limit", "overloaded", "server", "connection"))
    if fault.status != 200:
        assert "fault" in error.message
        assert error.status == fault.status


@pytest.mark.parametrize(("fault", "expected"), READING, ids=label)
async def test_a_bad_reply_is_kept_raw_and_then_judged(
    kind: ProviderKind, fault: Fault, expected: str
) -> None:
    if (kind, fault.what) == ("ollama", "refusal"):
        expected = "empty"  # Ollama has no word for it
    async with place(kind, script=always(fault)) as (server, provider):
        with pytest.raises(ProviderError) as caught:
            await complete(provider, ask("test-model", "Hello there"))
        assert caught.value.kind == expected
        assert len(server.paid) == 1
        if (kind, fault.what) == ("openai", "huge"):
            return  # read no further than the limit, so there is no body
        raw = await provider.send(ask("test-model", "Hello there"))
        assert isinstance(raw.body, bytes)
        assert bool(raw.body) == (fault.what != "empty")
        assert len(server.paid) == 2


async def test_a_hanging_server_is_left_at_the_time_limit(kind: ProviderKind) -> None:
    async with place(kind, timeout_s=0.5, script=always(Fault("hang"))) as (server, provider):
        start = time.monotonic()
        with pytest.raises(ProviderError, match=r"within 0\.5 s") as caught:
            await provider.send(ask("test-model", "Hello there"))
        assert time.monotonic() - start < 5
        assert (caught.value.kind, caught.value.maybe_charged) == ("timeout", True)
        assert len(server.paid) == 1


async def test_a_byte_now_and_then_does_not_outlive_the_time_limit(kind: ProviderKind) -> None:
    async with place(kind, timeout_s=0.7, script=always(Fault("slow"))) as (server, provider):
        with pytest.raises(ProviderError) as caught:
            await provider.send(ask("test-model", "Hello there"))
        assert caught.value.kind == "timeout"
        assert len(server.paid) == 1


async def test_the_wait_that_the_server_asks_for_is_told(kind: ProviderKind) -> None:
    async with place(kind, script=in_order(status(429, "7"), status(429))) as (_, provider):
        waits = []
        for _ in range(2):
            with pytest.raises(ProviderError) as caught:
                await provider.send(ask("test-model", "Hello there"))
            waits.append(caught.value.retry_after_s)
    assert waits == [7.0, None]


async def test_nobody_listening_is_a_connection_failure_that_names_the_address(kind: ProviderKind) -> None:
    async with place(kind) as (server, provider):
        address = f"127.0.0.1:{server._port}"
        await server.__aexit__()
        with pytest.raises(ProviderError, match=address) as caught:
            await provider.send(ask("test-model", "Hello there"))
    assert caught.value.kind == "connection"
    assert caught.value.remedy


async def test_half_a_surrogate_pair_can_be_stored(kind: ProviderKind) -> None:
    async with place(kind, script=always(Fault("surrogate"))) as (_, provider):
        answer = await complete(provider, ask("test-model", "half \ud83d too"))
        assert answer.text == "half \ufffd pair"
        assert answer.text.encode()


async def test_a_stored_reply_can_be_read_again(kind: ProviderKind) -> None:
    async with place(kind) as (server, provider):
        raw = await provider.send(ask("test-model", "Hello there"))
        first, again = provider.parse(raw), provider.parse(RawReply(raw.body, 0.0))
        assert first == again
        assert first.raw.encode() == raw.body
        assert len(server.paid) == 1


@pytest.mark.parametrize("what", ["no_end", "cut", "error_inside", "close", "html", "empty"])
async def test_a_stream_without_its_end_is_a_failure(kind: ProviderKind, what: str) -> None:
    async with place(kind, script=always(Fault(what))) as (server, provider):  # type: ignore[arg-type]
        pieces: list[str] = []
        with pytest.raises(ProviderError) as caught:
            await collect(provider.stream(ask("test-model", "one two three four")), pieces)
        assert len(server.paid) == 1
    assert "You " in pieces if what in ("no_end", "error_inside") else len(pieces) < 6
    assert caught.value.kind in ("unparsable", "connection", "server", "overloaded")


async def test_a_cancelled_call_leaves_a_usable_provider(kind: ProviderKind) -> None:
    async with place(kind, script=in_order(Fault("hang"))) as (server, provider):
        call = asyncio.ensure_future(provider.send(ask("test-model", "Hello there")))
        while not server.paid:
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        answer = await complete(provider, ask("test-model", "Hello there"))
    assert answer.text == "You said: Hello there"


async def collect(stream: AsyncGenerator[str, None], into: list[str]) -> None:
    async for piece in stream:
        into.append(piece)
