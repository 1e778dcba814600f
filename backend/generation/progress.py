"""How a campaign stands, from its rows alone: the same figures for a campaign of this program or another."""

from __future__ import annotations

import math
from dataclasses import dataclass

from backend.generation.campaigns import named
from backend.settings import Workspace
from backend.store import Queries, campaigns, leases, requests
from backend.store.campaigns import Campaign, CampaignDomain
from backend.store.clock import now
from backend.store.requests import Request, Spent

# The rate is that of the newest acceptances, so that it follows a change of model or load.
_RECENT = 60


@dataclass(frozen=True, slots=True)
class Progress:
    """A campaign with its figures. `rate` is accepted samples a second, `eta_s` the seconds to the whole
    target with a 95 % range (`eta_low_s` to `eta_high_s`, from the Poisson error of the rate); None where
    nothing can be said. `acceptance` is accepted of judged, 0 to 1. `projected_usd` is the cost of the
    whole at the cost of each accepted sample so far."""

    campaign: Campaign
    owned: bool
    domains: tuple[CampaignDomain, ...]
    accepted: int
    rejected: int
    spent: Spent
    rate: float | None
    requests_per_s: float | None
    eta_s: float | None
    eta_low_s: float | None
    eta_high_s: float | None
    acceptance: float | None
    projected_usd: float | None


async def progress(queries: Queries, campaign: Campaign) -> Progress:
    domains = await campaigns.domains(queries, campaign.id)
    spent = await requests.spent(queries, campaign.id)
    accepted, rejected = sum(d.accepted for d in domains), sum(d.rejected for d in domains)
    running = campaign.state == "running"
    recent = await queries.fetch_all(
        "SELECT created_at FROM samples WHERE campaign_id = ? AND state != 'gated' ORDER BY id DESC LIMIT ?",
        (campaign.id, _RECENT),
    )
    times = [row[0] for row in recent]
    until = now() if running else max(times, default=0.0)
    rate = len(times) / max(until - min(times), 1e-9) if len(times) > 1 and until > min(times) else None
    asked = await queries.fetch_one(
        "SELECT count(*), min(sent_at) FROM "
        "(SELECT sent_at FROM requests WHERE campaign_id = ? ORDER BY id DESC LIMIT ?)",
        (campaign.id, _RECENT),
    )
    requests_per_s = asked[0] / max(now() - asked[1], 1e-9) if running and asked and asked[0] > 1 else None
    left = campaign.target - accepted
    eta = low = high = None
    if running and rate and left > 0:
        eta = left / rate
        error = 1.96 / math.sqrt(len(times))
        low, high = eta / (1 + error), eta / max(1 - error, 0.05)
    return Progress(
        campaign=campaign,
        owned=await leases.holder(queries, f"campaign:{campaign.name}") is not None,
        domains=tuple(domains),
        accepted=accepted,
        rejected=rejected,
        spent=spent,
        rate=rate if running else None,
        requests_per_s=requests_per_s,
        eta_s=eta,
        eta_low_s=low,
        eta_high_s=high,
        acceptance=accepted / (accepted + rejected) if accepted + rejected else None,
        projected_usd=spent.cost_usd / accepted * campaign.target if accepted else None,
    )


async def progress_of(ws: Workspace, name: str) -> Progress:
    """The named campaign's progress. Raises CampaignError."""
    return await progress(ws.db, await named(ws, name))


async def every_progress(ws: Workspace) -> list[Progress]:
    """Every campaign's progress, newest first."""
    return [await progress(ws.db, campaign) for campaign in await campaigns.every(ws.db)]


async def failures(ws: Workspace, name: str, limit: int = 20) -> list[Request]:
    """The campaign's newest failures, newest first. Raises CampaignError."""
    return await requests.last_failures(ws.db, (await named(ws, name)).id, limit)
