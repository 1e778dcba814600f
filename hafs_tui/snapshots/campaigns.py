"""What the Campaigns screen shows: each campaign with its figures, and the failures of the selected one."""

from __future__ import annotations

from dataclasses import dataclass

from backend.generation.campaigns import RoutingDecision, routing_decisions
from backend.generation.progress import Progress, progress
from backend.settings import Workspace
from backend.store import campaigns, requests
from backend.store.requests import Request

FAILURES = 20


@dataclass(frozen=True, slots=True)
class CampaignsSnapshot:
    """`failures` belong to the campaign `selected`, newest first; so does `newest`, the last routing decision
    of a hybrid campaign."""

    campaigns: tuple[Progress, ...]
    selected: str | None
    failures: tuple[Request, ...]
    newest: RoutingDecision | None = None


class CampaignReader:
    """Reads progress anew only where something can have changed: a campaign that rests keeps its figures."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Progress] = {}

    async def every(self, ws: Workspace) -> tuple[Progress, ...]:
        """The progress of every campaign, newest first."""
        found: list[Progress] = []
        known: dict[tuple[int, int], Progress] = {}
        for campaign in await campaigns.every(ws.db):
            kept = self._known.get((campaign.id, campaign.change))
            if kept is None or kept.owned or campaign.state == "running":
                kept = await progress(ws.db, campaign)
            known[campaign.id, campaign.change] = kept
            found.append(kept)
        self._known = known
        return tuple(found)

    async def read(self, ws: Workspace, selected: str | None) -> CampaignsSnapshot:
        """Everything that the screen shows; `selected` is a name, or None for the newest."""
        found = await self.every(ws)
        chosen = next((p.campaign for p in found if p.campaign.name == selected), None)
        if chosen is None and found:
            chosen = found[0].campaign
        failures = await requests.last_failures(ws.db, chosen.id, FAILURES) if chosen else []
        newest = None
        if chosen is not None and chosen.local is not None:
            newest = next(iter(await routing_decisions(ws, chosen.name, newest=1)), None)
        return CampaignsSnapshot(found, chosen.name if chosen else None, tuple(failures), newest)
