"""Two campaigns (or two models) side by side, by what an accepted sample really cost."""

from __future__ import annotations

from dataclasses import dataclass

from backend.evaluation.rates import wilson
from backend.generation.campaigns import named
from backend.generation.progress import progress
from backend.settings import Workspace


@dataclass(frozen=True, slots=True)
class Side:
    """One campaign's figures. `acceptance` is accepted of judged with its 95 % Wilson interval; duplicates
    are answers that only the duplicates gate turned away, with their rate of judged; costs in dollars."""

    name: str
    model: str
    judged: int
    accepted: int
    acceptance: float | None
    acceptance_low: float | None
    acceptance_high: float | None
    duplicates: int
    duplicate_rate: float | None
    mean_score: float | None
    requests: int
    failed: int
    cost_usd: float
    cost_per_accepted_usd: float | None


async def compare(ws: Workspace, first: str, second: str) -> tuple[Side, Side]:
    """Raises CampaignError when one of them is not there."""
    return await _side(ws, first), await _side(ws, second)


async def _side(ws: Workspace, name: str) -> Side:
    campaign = await named(ws, name)
    stands = await progress(ws.db, campaign)
    judged = stands.accepted + stands.rejected
    interval = wilson(stands.accepted, judged) if judged else None
    duplicates = await ws.db.fetch_value(
        "SELECT count(*) FROM gates JOIN samples ON samples.id = gates.sample_id "
        "WHERE campaign_id = ? AND name = 'duplicates' AND passed = 0",
        (campaign.id,),
    )
    mean_score = await ws.db.fetch_value(
        "SELECT avg(score) FROM samples WHERE campaign_id = ?", (campaign.id,)
    )
    return Side(
        name=name,
        model=campaign.model,
        judged=judged,
        accepted=stands.accepted,
        acceptance=stands.acceptance,
        acceptance_low=interval.low if interval else None,
        acceptance_high=interval.high if interval else None,
        duplicates=duplicates,
        duplicate_rate=duplicates / judged if judged else None,
        mean_score=mean_score,
        requests=stands.spent.requests,
        failed=stands.spent.failed + stands.spent.unanswered,
        cost_usd=stands.spent.cost_usd,
        cost_per_accepted_usd=stands.spent.cost_usd / stands.accepted if stands.accepted else None,
    )
