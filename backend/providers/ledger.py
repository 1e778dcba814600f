"""Asks providers through the ledger: a row before sending, the raw answer before anyone looks into it.

The judge, candidates and evaluation go through `asked`; campaigns through its parts, so that reading an
answer and judging it are one commit. What was answered once is never asked, or paid for, again.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass

from backend.providers.base import Answer, ChatRequest, Provider, ProviderError, RawReply, problem_of
from backend.providers.pricing import cost_usd, current_prices
from backend.settings import Workspace
from backend.store import Transaction, requests
from backend.store.requests import Purpose, Request

# Failures after which nobody can say whether the provider did the work and charged for it.
_UNANSWERED = ("timeout", "connection")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request belongs: its purpose, and in a campaign its domain and ordinal."""

    purpose: Purpose
    campaign_id: int | None = None
    domain: str | None = None
    ordinal: int | None = None
    routing: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A stored answer. `reused` says that it was there before, so that nothing was sent."""

    request_id: int
    answer: Answer
    reused: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """A raw answer that is a row, of this provider and model. `reused`: it was there before. `is_read`: its
    usage is recorded."""

    request_id: int
    raw: RawReply
    provider: str
    model: str
    reused: bool = False
    is_read: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """What a raw answer says: `answer` where it can be read, `problem` where it is no good, and its cost in
    dollars (None: the price is not known)."""

    stored: Stored
    answer: Answer | None
    problem: ProviderError | None
    cost_usd: float | None

    @property
    def good(self) -> Answer:
        """The answer. Raises ProviderError where it is no good."""
        if self.problem is not None:
            raise self.problem
        assert self.answer is not None  # noqa: S101 - parse either gave an answer or a problem
        return self.answer


async def asked(
    ws: Workspace,
    provider: Provider,
    request: ChatRequest,
    place: Place,
    *,
    content_key: str | None = None,
    accept_cut: bool = False,
) -> Reply:
    """Ask once, or take the answer that the ledger has for this content key.

    The key is `request.key(provider.name)` where none is given; give one where the same words may be asked
    several times (candidates of one prompt). `accept_cut` lets an answer pass that the token limit cut.

    Raises ProviderError; the ledger then says why, and whether the request may have been charged. Raises
    PriceError for a broken price file.
    """
    stored = await sent(ws, provider, request, place, content_key=content_key)
    reading = read(ws, provider, stored, accept_cut=accept_cut)
    if not stored.is_read:
        await ws.db.write(lambda transaction: record(transaction, reading))
    return Reply(stored.request_id, reading.good, stored.reused)


async def sent(
    ws: Workspace,
    provider: Provider,
    request: ChatRequest,
    place: Place,
    *,
    content_key: str | None = None,
    slot: AbstractAsyncContextManager[None] | None = None,
) -> Stored:
    """The first half of `asked`: a row, then the request, then its raw answer on the row. `slot` is held
    while the request is out; where it raises before, the row is taken back. Raises as `asked` does."""
    current_prices(ws.home)  # a broken price file is told before anything is paid
    key = content_key or request.key(provider.name)
    opened = await _open(ws, provider, request, place, key)
    if isinstance(opened, Request):
        return stored_of(opened)
    is_out = False
    try:
        async with slot or nullcontext():
            is_out = True
            raw = await _send(ws, provider, request, opened)
    except BaseException:
        if not is_out:
            await ws.db.write(lambda transaction: requests.take_back(transaction, opened, key))
        raise
    # Also when the task is cancelled meanwhile: the answer was paid for.
    await ws.db.write(lambda transaction: requests.record_answer(transaction, opened, raw.body))
    return Stored(opened, raw, provider.name, request.model)


def stored_of(request: Request) -> Stored:
    """The answer on a request's row."""
    return Stored(
        request.id,
        RawReply(request.raw or b"", request.ended_at or request.sent_at),
        request.provider,
        request.model,
        reused=True,
        is_read=request.prompt_tokens is not None,
    )


async def _open(
    ws: Workspace, provider: Provider, request: ChatRequest, place: Place, key: str
) -> Request | int:
    """The answer that is there already, or the id of a new attempt's row."""
    inserted: list[int] = []

    async def work(transaction: Transaction) -> Request | int:
        stored = await requests.answered_by_key(transaction, key)
        if stored is not None and stored.raw is not None:
            return stored
        inserted.append(
            await requests.insert_sent(
                transaction,
                purpose=place.purpose,
                content_key=key,
                provider=provider.name,
                model=request.model,
                prompt=request.canonical(),
                campaign_id=place.campaign_id,
                domain=place.domain,
                ordinal=place.ordinal,
                routing=place.routing,
            )
        )
        return inserted[0]

    try:
        return await ws.db.write(work)
    except asyncio.CancelledError:
        for request_id in inserted:  # it stands there as sent, and never was
            await ws.db.write(lambda transaction, i=request_id: requests.take_back(transaction, i, key))  # type: ignore[misc]
        raise


async def _send(ws: Workspace, provider: Provider, request: ChatRequest, request_id: int) -> RawReply:
    try:
        return await provider.send(request)
    except ProviderError as error:
        failure = error  # the name of an except clause is gone when its block ends
        await ws.db.write(lambda transaction: _record_error(transaction, request_id, failure))
        raise
    except asyncio.CancelledError:
        why = "cancelled while in flight; it may have been charged"
        await ws.db.write(lambda transaction: requests.mark_unanswered(transaction, request_id, why))
        raise


async def _record_error(transaction: Transaction, request_id: int, error: ProviderError) -> None:
    if error.kind in _UNANSWERED:
        await requests.mark_unanswered(transaction, request_id, f"{error.message} It may have been charged.")
    else:
        await requests.record_failure(transaction, request_id, error.kind, error.message)


def read(ws: Workspace, provider: Provider, stored: Stored, *, accept_cut: bool = False) -> Reading:
    """Read a stored raw answer. Raises PriceError for a broken price file, and nothing because of what the
    provider sent."""
    prices = current_prices(ws.home)
    try:
        answer = provider.parse(stored.raw)
    except ProviderError as error:
        return Reading(stored, None, error, None)
    problem = problem_of(answer, provider.name)
    if problem and problem.kind == "truncated" and accept_cut and answer.text.strip():
        problem = None
    cost = cost_usd(provider.name, answer.model, answer.usage, prices=prices)
    return Reading(stored, answer, problem, cost)


async def record(transaction: Transaction, reading: Reading, *, judged: bool = False) -> None:
    """Put usage and cost on the request's row; a useless answer becomes a recorded failure, and its raw
    bytes stay. `judged`: a sample is made of it in this very transaction."""
    request_id = reading.stored.request_id
    if reading.answer is not None:
        usage = reading.answer.usage
        await requests.record_usage(
            transaction,
            request_id,
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.cached_tokens,
            reading.cost_usd,
            judged=judged,
        )
    if reading.problem is not None:
        await requests.record_failure(transaction, request_id, reading.problem.kind, reading.problem.message)
