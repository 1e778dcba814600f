"""Rows of requests: the ledger of every call of a provider.

A row stands before the request is sent and the raw answer before it is judged, so a crash can
neither lose a paid answer nor hide a possible charge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from backend.store import leases
from backend.store.clock import now
from backend.store.connection import Database, Queries, Transaction

Purpose = Literal["generate", "candidate", "judge", "evaluate", "chat"]
RequestState = Literal["sent", "answered", "failed", "unanswered"]


@dataclass(frozen=True, slots=True)
class Request:
    id: int
    purpose: Purpose
    campaign_id: int | None
    domain: str | None
    ordinal: int | None
    content_key: str
    attempt: int
    provider: str
    model: str
    prompt: str
    routing: str | None
    state: RequestState
    error_kind: str | None
    error_message: str | None
    raw: bytes | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    cost_usd: float | None
    sent_at: float
    ended_at: float | None
    judged: bool


async def insert_sent(
    transaction: Transaction,
    *,
    purpose: Purpose,
    content_key: str,
    provider: str,
    model: str,
    prompt: str,
    campaign_id: int | None = None,
    domain: str | None = None,
    ordinal: int | None = None,
    routing: str | None = None,
) -> int:
    """Record the next attempt of `content_key` as about to be sent; the request's id."""
    return await transaction.insert(
        "INSERT INTO requests (purpose, campaign_id, domain, ordinal, content_key, attempt, provider, model, prompt, "
        "routing, state, sent_at, owner) VALUES (?1, ?2, ?3, ?4, ?5, "
        "(SELECT coalesce(max(attempt), 0) + 1 FROM requests WHERE content_key = ?5), "
        "?6, ?7, ?8, ?9, 'sent', ?10, ?11)",
        (purpose, campaign_id, domain, ordinal, content_key, provider, model, prompt, routing, now(),
         leases.this_process()),
    )  # fmt: skip


async def take_back(transaction: Transaction, request_id: int, content_key: str) -> None:
    """Remove the row of a request that was never sent."""
    await transaction.execute(
        "DELETE FROM requests WHERE id = ? AND content_key = ? AND state = 'sent'", (request_id, content_key)
    )


async def record_answer(transaction: Transaction, request_id: int, raw: bytes) -> None:
    """Keep the raw answer, before anybody looks into it."""
    await transaction.execute(
        "UPDATE requests SET state = 'answered', raw = ?, ended_at = ? WHERE id = ?", (raw, now(), request_id)
    )


async def record_usage(
    transaction: Transaction, request_id: int, prompt: int | None, completion: int | None, cached: int | None,
    cost_usd: float | None, *, judged: bool = False,
) -> None:  # fmt: skip
    await transaction.execute(
        "UPDATE requests SET prompt_tokens = ?, completion_tokens = ?, cached_tokens = ?, cost_usd = ?, "
        "judged = max(judged, ?) WHERE id = ?",
        (prompt, completion, cached, cost_usd, int(judged), request_id),
    )


async def record_failure(transaction: Transaction, request_id: int, kind: str, message: str) -> None:
    """A failure that the provider told us of, or an answer that is no sample; the raw answer stays."""
    await transaction.execute(
        "UPDATE requests SET state = 'failed', error_kind = ?, error_message = ?, ended_at = coalesce(ended_at, ?), "
        "judged = 1 WHERE id = ?",
        (kind, message, now(), request_id),
    )


async def mark_judged(transaction: Transaction, request_id: int) -> None:
    await transaction.execute("UPDATE requests SET judged = 1 WHERE id = ?", (request_id,))


async def mark_unanswered(transaction: Transaction, request_id: int, message: str) -> None:
    """In flight when its sender ended, cut or timed out: it may have been charged."""
    await transaction.execute(
        "UPDATE requests SET state = 'unanswered', error_kind = coalesce(error_kind, 'unanswered'), "
        "error_message = ?, ended_at = ?, judged = 1 WHERE id = ?",
        (message, now(), request_id),
    )


async def answered_unjudged(queries: Queries, campaign_id: int) -> list[Request]:
    """Answers that were paid for and stored, but not judged before the last end."""
    return await queries.rows(
        Request,
        "SELECT * FROM requests WHERE campaign_id = ? AND state = 'answered' AND judged = 0 ORDER BY id",
        (campaign_id,),
    )


async def in_flight(queries: Queries, campaign_id: int) -> list[Request]:
    return await queries.rows(
        Request, "SELECT * FROM requests WHERE campaign_id = ? AND state = 'sent' ORDER BY id", (campaign_id,)
    )


async def settle_left(database: Database) -> int:
    """Mark what processes that live no more left in flight outside of campaigns (candidates, the judge, chat,
    evaluation); how many. A campaign settles its own when it runs again, and says so in its log."""
    rows = await database.fetch_all(
        "SELECT id, owner FROM requests WHERE state = 'sent' AND campaign_id IS NULL AND owner IS NOT NULL"
    )
    left = [row["id"] for row in rows if not leases.lives(row["owner"])]
    if left:
        async with database.transaction() as transaction:
            for request_id in left:
                await mark_unanswered(
                    transaction, request_id, "in flight when its process ended; it may have been charged"
                )
    return len(left)


async def last_failures(queries: Queries, campaign_id: int, limit: int = 20) -> list[Request]:
    """The newest failures and unanswered requests, newest first."""
    return await queries.rows(
        Request,
        "SELECT * FROM requests WHERE campaign_id = ? AND state IN ('failed', 'unanswered') ORDER BY id DESC LIMIT ?",
        (campaign_id, limit),
    )


async def by_id(queries: Queries, request_id: int) -> Request | None:
    return await queries.row(Request, "SELECT * FROM requests WHERE id = ?", (request_id,))


async def answered_by_key(queries: Queries, content_key: str) -> Request | None:
    """A complete answer to this very question, if one was ever stored."""
    return await queries.row(
        Request, "SELECT * FROM requests WHERE content_key = ? AND state = 'answered' ORDER BY attempt LIMIT 1",
        (content_key,),
    )  # fmt: skip


# Failures that say nothing about the question: asked again another day, it may well be answered.
_NOT_THE_QUESTION = ("rate_limit", "overloaded", "server", "auth", "unknown_model")


async def never_answered(queries: Queries, campaign_id: int) -> list[tuple[str, int]]:
    """[(domain, ordinal)] of questions whose every attempt stayed without an answer, in order: it was in
    flight when its sender ended, or the provider turned it away for a reason of its own."""
    marks = ",".join("?" * len(_NOT_THE_QUESTION))
    rows = await queries.fetch_all(
        "SELECT domain, ordinal FROM requests WHERE campaign_id = ? AND ordinal IS NOT NULL GROUP BY domain, ordinal "  # noqa: S608
        f"HAVING sum(state != 'unanswered' AND NOT (state = 'failed' AND error_kind IN ({marks}))) = 0 "
        "ORDER BY domain, ordinal",
        (campaign_id, *_NOT_THE_QUESTION),
    )
    return [(row[0], row[1]) for row in rows]


async def next_ordinal(queries: Queries, campaign_id: int, domain: str) -> int:
    """The first ordinal of the domain that was never asked."""
    value = await queries.fetch_value(
        "SELECT coalesce(max(ordinal) + 1, 0) FROM requests WHERE campaign_id = ? AND domain = ?",
        (campaign_id, domain),
    )
    return int(value)


@dataclass(frozen=True, slots=True)
class Spent:
    """What a campaign used so far. `unpriced` counts answers whose model has no known price."""

    requests: int
    answered: int
    failed: int
    unanswered: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    unpriced: int


async def spent(queries: Queries, campaign_id: int) -> Spent:
    found = await queries.row(
        Spent,
        "SELECT count(*) AS requests, coalesce(sum(state = 'answered'), 0) AS answered, "
        "coalesce(sum(state = 'failed'), 0) AS failed, coalesce(sum(state = 'unanswered'), 0) AS unanswered, "
        "coalesce(sum(prompt_tokens), 0) AS prompt_tokens, coalesce(sum(completion_tokens), 0) AS completion_tokens, "
        "coalesce(sum(cost_usd), 0.0) AS cost_usd, "
        "coalesce(sum(state = 'answered' AND cost_usd IS NULL), 0) AS unpriced FROM requests WHERE campaign_id = ?",
        (campaign_id,),
    )
    assert found is not None  # noqa: S101 - an aggregate always has a row
    return found
