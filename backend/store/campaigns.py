"""Rows of campaigns and their domains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from backend.store.clock import now
from backend.store.connection import Queries, Transaction

CampaignState = Literal["created", "running", "paused", "done", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class Campaign:
    id: int
    name: str
    state: CampaignState
    wish: Literal["pause", "cancel"] | None
    provider: str
    model: str
    base_url: str | None
    target: int
    temperature: float
    max_tokens: int | None
    seed: int
    parallel: int
    budget_usd: float | None
    budget_requests: int | None
    error: str | None
    created_at: float
    started_at: float | None
    ended_at: float | None
    change: int
    local: str | None
    priority: int


@dataclass(frozen=True, slots=True)
class CampaignDomain:
    campaign_id: int
    domain: str
    target: int
    accepted: int
    rejected: int
    exhausted: bool


async def insert(
    transaction: Transaction,
    *,
    name: str,
    provider: str,
    model: str,
    base_url: str | None,
    targets: dict[str, int],
    temperature: float,
    max_tokens: int | None,
    seed: int,
    parallel: int,
    budget_usd: float | None,
    budget_requests: int | None,
    local: str | None = None,
    priority: int = 0,
) -> int:
    """Insert a campaign in state "created" with its domains' targets; its id."""
    campaign_id = await transaction.insert(
        "INSERT INTO campaigns (name, state, provider, model, base_url, target, temperature, max_tokens, seed, "
        "parallel, budget_usd, budget_requests, local, priority, created_at) "
        "VALUES (?, 'created', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (name, provider, model, base_url, sum(targets.values()), temperature, max_tokens, seed, parallel,
         budget_usd, budget_requests, local, priority, now()),
    )  # fmt: skip
    await transaction.execute_many(
        "INSERT INTO campaign_domains (campaign_id, domain, target) VALUES (?, ?, ?)",
        [(campaign_id, domain, target) for domain, target in targets.items()],
    )
    return campaign_id


async def by_name(queries: Queries, name: str) -> Campaign | None:
    return await queries.row(Campaign, "SELECT * FROM campaigns WHERE name = ?", (name,))


async def every(queries: Queries) -> list[Campaign]:
    """All campaigns, newest first."""
    return await queries.rows(Campaign, "SELECT * FROM campaigns ORDER BY id DESC")


async def domains(queries: Queries, campaign_id: int) -> list[CampaignDomain]:
    return await queries.rows(
        CampaignDomain, "SELECT * FROM campaign_domains WHERE campaign_id = ? ORDER BY domain", (campaign_id,)
    )


async def set_state(
    transaction: Transaction, campaign_id: int, state: CampaignState, error: str | None = None
) -> None:
    """Move a campaign to `state`, keeping its times, and forget any wish that this answers."""
    at = now()
    await transaction.execute(
        "UPDATE campaigns SET state = ?, error = ?, wish = NULL, "
        "started_at = CASE WHEN ? = 'running' THEN coalesce(started_at, ?) ELSE started_at END, "
        "ended_at = CASE WHEN ? IN ('done', 'cancelled', 'failed') THEN ? ELSE NULL END WHERE id = ?",
        (state, error, state, at, state, at, campaign_id),
    )


async def set_wish(transaction: Transaction, campaign_id: int, wish: Literal["pause", "cancel"]) -> None:
    """Ask the owner of a running campaign, which may be another process, to pause or cancel it."""
    await transaction.execute("UPDATE campaigns SET wish = ? WHERE id = ?", (wish, campaign_id))


async def set_targets(transaction: Transaction, campaign_id: int, targets: dict[str, int]) -> None:
    """Give the domains new targets; a campaign that was done is paused, and has somewhere to go again."""
    await transaction.execute_many(
        "UPDATE campaign_domains SET target = ?, exhausted = 0 WHERE campaign_id = ? AND domain = ?",
        [(target, campaign_id, domain) for domain, target in targets.items()],
    )
    await transaction.execute(
        "UPDATE campaigns SET target = ?, state = CASE state WHEN 'done' THEN 'paused' ELSE state END, "
        "ended_at = NULL, error = NULL WHERE id = ?",
        (sum(targets.values()), campaign_id),
    )


async def set_priority(transaction: Transaction, campaign_id: int, priority: int) -> None:
    await transaction.execute("UPDATE campaigns SET priority = ? WHERE id = ?", (priority, campaign_id))


async def count(transaction: Transaction, campaign_id: int, domain: str, *, accepted: bool) -> None:
    """Add one judged sample to a domain's counters, and wake the campaign's viewers."""
    column = "accepted" if accepted else "rejected"
    await transaction.execute(
        f"UPDATE campaign_domains SET {column} = {column} + 1 WHERE campaign_id = ? AND domain = ?",  # noqa: S608
        (campaign_id, domain),
    )
    await transaction.execute("UPDATE campaigns SET error = error WHERE id = ?", (campaign_id,))


async def set_exhausted(transaction: Transaction, campaign_id: int, domain: str) -> None:
    """Record that a domain ran out of seeds to ask about before it met its target."""
    await transaction.execute(
        "UPDATE campaign_domains SET exhausted = 1 WHERE campaign_id = ? AND domain = ?",
        (campaign_id, domain),
    )


async def recount(transaction: Transaction, campaign_id: int, domain: str) -> None:
    """Make a domain's counters anew from its samples."""
    await transaction.execute(
        "UPDATE campaign_domains SET "
        "accepted = (SELECT count(*) FROM samples AS s "
        "WHERE s.campaign_id = ?1 AND s.domain = ?2 AND state != 'gated'), "
        "rejected = (SELECT count(*) FROM samples AS s "
        "WHERE s.campaign_id = ?1 AND s.domain = ?2 AND state = 'gated') "
        "WHERE campaign_id = ?1 AND domain = ?2",
        (campaign_id, domain),
    )
    await transaction.execute("UPDATE campaigns SET error = error WHERE id = ?", (campaign_id,))
