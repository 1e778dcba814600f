"""Making and steering campaigns: the functions that the screens and the command line call."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path

from backend.generation.domains import load_domains
from backend.generation.engine import CampaignError
from backend.generation.journal import export_samples
from backend.generation.plan import split_target
from backend.settings import Workspace
from backend.store import campaigns, leases
from backend.store.campaigns import Campaign

PROVIDERS = ("gemini", "anthropic", "ollama", "openai", "embedded")


@dataclass(frozen=True, slots=True)
class NewCampaign:
    """What a person says of a new campaign. Empty `domains` means every domain there is; None means the
    default of the settings; `temperature` is 0 to 2, `budget_usd` in dollars."""

    name: str
    provider: str
    model: str
    target: int
    domains: tuple[str, ...] = ()
    base_url: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    parallel: int | None = None
    seed: int | None = None
    budget_usd: float | None = None
    budget_requests: int | None = None


async def create(ws: Workspace, new: NewCampaign) -> Campaign:
    """Store a campaign, ready to run. Raises CampaignError naming what cannot be, SettingsError for a
    broken domain file."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", new.name):
        raise CampaignError(f"{new.name!r} cannot name a campaign: use letters, digits, '.', '_' and '-'")
    if new.name in ("datasets", "evaluations", "benchmarks", "models"):
        raise CampaignError(f"{new.name!r} is a folder of the workspace; choose another name")
    if new.provider not in PROVIDERS:
        raise CampaignError(f"there is no provider {new.provider!r}; known: {', '.join(PROVIDERS)}")
    if not new.model.strip():
        raise CampaignError("a campaign needs a model, as the provider names it")
    temperature = ws.settings.campaign.temperature if new.temperature is None else new.temperature
    if not 0 <= temperature <= 2:
        raise CampaignError(f"temperature {temperature:g}: expected 0 to 2")
    for label, value in (("budget_usd", new.budget_usd), ("budget_requests", new.budget_requests)):
        if value is not None and value <= 0:
            raise CampaignError(f"{label} {value:g}: expected more than 0")
    known = await asyncio.to_thread(load_domains, ws.config)
    chosen = list(dict.fromkeys(new.domains)) or sorted(known)
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise CampaignError(f"there is no domain {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    try:
        targets = split_target(new.target, chosen)
    except ValueError as error:
        raise CampaignError(f"{error}; raise --target or name fewer --domains") from error
    async with ws.db.transaction() as transaction:
        if await campaigns.by_name(transaction, new.name) is not None:
            raise CampaignError(f"a campaign {new.name} exists already; run it, or choose another name")
        await campaigns.insert(
            transaction,
            name=new.name,
            provider=new.provider,
            model=new.model.strip(),
            base_url=new.base_url or None,
            targets=targets,
            temperature=temperature,
            max_tokens=new.max_tokens,
            seed=ws.settings.campaign.seed if new.seed is None else new.seed,
            parallel=new.parallel or ws.settings.campaign.parallel,
            budget_usd=new.budget_usd,
            budget_requests=new.budget_requests,
        )
    return await named(ws, new.name)


async def named(ws: Workspace, name: str) -> Campaign:
    """The campaign of that name. Raises CampaignError."""
    campaign = await campaigns.by_name(ws.db, name)
    if campaign is None:
        known = ", ".join(c.name for c in await campaigns.every(ws.db)) or "none yet"
        raise CampaignError(f"there is no campaign {name}; there are: {known}")
    return campaign


async def pause(ws: Workspace, name: str) -> Campaign:
    """Pause a campaign: its owner, wherever it runs, lets what is in flight finish and stops."""
    return await _ask(ws, name, "pause")


async def cancel(ws: Workspace, name: str) -> Campaign:
    """End a campaign for good; what it accepted stays."""
    return await _ask(ws, name, "cancel")


async def _ask(ws: Workspace, name: str, wish: str) -> Campaign:
    campaign = await named(ws, name)
    if campaign.state in ("done", "cancelled"):
        raise CampaignError(f"campaign {name} is {campaign.state} already")
    async with ws.db.transaction() as transaction:
        if await leases.holder(transaction, f"campaign:{name}") is not None:
            await campaigns.set_wish(transaction, campaign.id, "pause" if wish == "pause" else "cancel")
        else:
            await campaigns.set_state(transaction, campaign.id, "paused" if wish == "pause" else "cancelled")
    return await named(ws, name)


async def export(ws: Workspace, name: str, path: Path | None = None) -> tuple[Path, int]:
    """Write the campaign's accepted samples as JSONL in the origin's format: (file, rows)."""
    campaign = await named(ws, name)
    target = path or ws.campaign_folder(campaign.name) / "samples.jsonl"
    return target, await export_samples(ws, campaign.name, target)


@dataclass(frozen=True, slots=True)
class RoutingDecision:
    """Where one request went and why; `routing` None where the campaign has a single provider."""

    request_id: int
    domain: str | None
    ordinal: int | None
    provider: str
    model: str
    routing: str | None


async def routing_decisions(ws: Workspace, name: str) -> list[RoutingDecision]:
    """Every request of the campaign, oldest first. Raises CampaignError."""
    campaign = await named(ws, name)
    return await ws.db.rows(
        RoutingDecision,
        "SELECT id AS request_id, domain, ordinal, provider, model, routing FROM requests "
        "WHERE campaign_id = ? ORDER BY id",
        (campaign.id,),
    )
