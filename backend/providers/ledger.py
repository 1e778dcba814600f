"""Asks providers through the ledger: a row before sending, the raw answer before anyone looks into it.

Campaigns, the judge, candidates and evaluation all go through `asked`. What was answered once is never
asked, or paid for, again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from backend.providers.base import Answer, ChatRequest, Provider, ProviderError, RawReply, problem_of
from backend.providers.pricing import cost_usd, load_prices
from backend.settings import Workspace
from backend.store import Transaction, requests
from backend.store.requests import Purpose

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
    key = content_key or request.key(provider.name)
    stored = await requests.answered_by_key(ws.db, key)
    if stored is not None and stored.raw is not None:
        if stored.prompt_tokens is None:  # its process ended before it read what it had stored
            return replace(
                await read_answer(ws, provider, stored.id, stored.raw, accept_cut=accept_cut), reused=True
            )
        answer = provider.parse(RawReply(stored.raw, stored.ended_at or stored.sent_at))
        return Reply(stored.id, answer, reused=True)
    await asyncio.to_thread(load_prices, ws.home)  # a broken price file is told before anything is paid
    async with ws.db.transaction() as transaction:
        request_id = await requests.insert_sent(
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
    raw = await _send(ws, provider, request, request_id)
    return await read_answer(ws, provider, request_id, raw, accept_cut=accept_cut)


async def _send(ws: Workspace, provider: Provider, request: ChatRequest, request_id: int) -> bytes:
    try:
        raw = await provider.send(request)
    except ProviderError as error:
        async with ws.db.transaction() as transaction:
            await _record_error(transaction, request_id, error)
        raise
    except asyncio.CancelledError:
        async with ws.db.transaction() as transaction:
            await requests.mark_unanswered(
                transaction, request_id, "cancelled while in flight; it may have been charged"
            )
        raise
    await _keep(ws, request_id, raw.body)
    return raw.body


async def _keep(ws: Workspace, request_id: int, body: bytes) -> None:
    """Store a raw answer, also when the task is cancelled meanwhile: it was paid for."""

    async def store() -> None:
        async with ws.db.transaction() as transaction:
            await requests.record_answer(transaction, request_id, body)

    storing = asyncio.ensure_future(store())
    try:
        await asyncio.shield(storing)
    except asyncio.CancelledError:
        await storing
        raise


async def _record_error(transaction: Transaction, request_id: int, error: ProviderError) -> None:
    if error.kind in _UNANSWERED:
        await requests.mark_unanswered(transaction, request_id, f"{error.message} It may have been charged.")
    else:
        await requests.record_failure(transaction, request_id, error.kind, error.message)


async def read_answer(
    ws: Workspace, provider: Provider, request_id: int, body: bytes, *, accept_cut: bool = False
) -> Reply:
    """Read a stored raw answer: its usage and cost are recorded, a useless one becomes a recorded failure.

    Raises ProviderError for an answer that is no good; its raw bytes stay in the ledger.
    """
    problem: ProviderError | None
    answer: Answer | None = None
    prices = await asyncio.to_thread(load_prices, ws.home)
    try:
        answer = provider.parse(RawReply(body))
        problem = problem_of(answer, provider.name)
        if problem and problem.kind == "truncated" and accept_cut and answer.text.strip():
            problem = None
    except ProviderError as error:
        problem = error
    async with ws.db.transaction() as transaction:
        if answer is not None:
            usage = answer.usage
            await requests.record_usage(
                transaction,
                request_id,
                usage.prompt_tokens,
                usage.completion_tokens,
                usage.cached_tokens,
                cost_usd(provider.name, answer.model, usage, prices=prices),
            )
        if problem is not None:
            await requests.record_failure(transaction, request_id, problem.kind, problem.message)
    if problem is not None:
        raise problem
    assert answer is not None  # noqa: S101 - parse either gave an answer or a problem
    return Reply(request_id, answer)
