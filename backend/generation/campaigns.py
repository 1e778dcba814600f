"""Making and steering campaigns: the functions that the screens and the command line call."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backend.generation.domains import load_domains
from backend.generation.engine import CampaignError
from backend.generation.journal import export_samples
from backend.generation.plan import split_target
from backend.generation.routes import LocalModelError, local_model
from backend.hosts.catalog import host_settings
from backend.settings import Workspace
from backend.store import campaigns, leases
from backend.store.campaigns import Campaign
from backend.store.connection import Json

PROVIDERS = ("gemini", "anthropic", "ollama", "openai", "embedded")


@dataclass(frozen=True, slots=True)
class NewCampaign:
    """What a person says of a new campaign. Empty `domains` means every domain there is; None means the
    default of the settings; `temperature` is 0 to 2, `budget_usd` in dollars. `local` ("ollama:MODEL[@host]")
    makes it a hybrid one. A higher `priority` goes first at a provider. `weights` share the target by domain;
    a domain without one has 1."""

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
    local: str | None = None
    priority: int = 0
    weights: Mapping[str, float] = field(default_factory=dict)


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
    if new.local is not None:
        try:
            _, host = local_model(new.local)
        except LocalModelError as error:
            raise CampaignError(str(error)) from error
        host_settings(ws, host)
    for label, value in (("budget_usd", new.budget_usd), ("budget_requests", new.budget_requests)):
        if value is not None and value <= 0:
            raise CampaignError(f"{label} {value:g}: expected more than 0")
    known = await asyncio.to_thread(load_domains, ws.config)
    chosen = list(dict.fromkeys(new.domains)) or sorted(known)
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise CampaignError(f"there is no domain {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    try:
        targets = split_target(new.target, chosen, new.weights)
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
            local=new.local,
            priority=new.priority,
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


async def clone(ws: Workspace, name: str, new_name: str) -> Campaign:
    """Make a campaign that asks what another asks, ready to run, with nothing done yet.

    Raises CampaignError.
    """
    like = await named(ws, name)
    targets = {row.domain: row.target for row in await campaigns.domains(ws.db, like.id)}
    return await create(
        ws,
        NewCampaign(
            name=new_name,
            provider=like.provider,
            model=like.model,
            target=like.target,
            domains=tuple(targets),
            base_url=like.base_url,
            temperature=like.temperature,
            max_tokens=like.max_tokens,
            parallel=like.parallel,
            seed=like.seed,
            budget_usd=like.budget_usd,
            budget_requests=like.budget_requests,
            local=like.local,
            priority=like.priority,
            weights={domain: float(target) for domain, target in targets.items()},
        ),
    )


async def retarget(ws: Workspace, name: str, target: int) -> Campaign:
    """Raise a campaign's target, each domain's in proportion; one that was done may run again.

    Raises CampaignError for a target that is not higher, or a campaign that was cancelled or runs now.
    """
    campaign = await named(ws, name)
    if campaign.state == "cancelled":
        raise CampaignError(f"campaign {name} was cancelled; clone it: hafs-tui campaign clone {name} NEW")
    if target <= campaign.target:
        raise CampaignError(f"campaign {name} has a target of {campaign.target}: name a higher one")
    async with ws.db.transaction() as transaction:
        if await leases.holder(transaction, f"campaign:{name}") is not None:
            raise CampaignError(f"campaign {name} runs; pause it first: hafs-tui campaign pause {name}")
        rows = await campaigns.domains(transaction, campaign.id)
        targets = split_target(target, [r.domain for r in rows], {r.domain: float(r.target) for r in rows})
        await campaigns.set_targets(transaction, campaign.id, targets)
    return await named(ws, name)


async def set_priority(ws: Workspace, name: str, priority: int) -> Campaign:
    """Say how a campaign stands against others at the same provider: the higher goes first. It holds from the
    campaign's next start. Raises CampaignError."""
    campaign = await named(ws, name)
    async with ws.db.transaction() as transaction:
        await campaigns.set_priority(transaction, campaign.id, priority)
    return replace(campaign, priority=priority)


async def export(ws: Workspace, name: str, path: Path | None = None) -> tuple[Path, int]:
    """Write the campaign's accepted samples as JSONL in the origin's format: (file, rows)."""
    campaign = await named(ws, name)
    target = path or ws.campaign_folder(campaign.name) / "samples.jsonl"
    return target, await export_samples(ws, campaign.name, target)


@dataclass(frozen=True, slots=True)
class RoutingDecision:
    """Where one request went and why. `routing` is {"to", "reason", "reading"}, the reading that was looked at
    with its fields; None where the campaign has a single provider."""

    request_id: int
    domain: str | None
    ordinal: int | None
    provider: str
    model: str
    routing: Json[dict[str, Any]] | None

    @property
    def reason(self) -> str:
        return str(self.routing["reason"]) if self.routing else "the campaign's own provider"


async def routing_decisions(ws: Workspace, name: str, *, newest: int | None = None) -> list[RoutingDecision]:
    """Every request of the campaign, or its `newest`, oldest first. Raises CampaignError."""
    campaign = await named(ws, name)
    found = await ws.db.rows(
        RoutingDecision,
        "SELECT id AS request_id, domain, ordinal, provider, model, routing FROM requests "
        "WHERE campaign_id = ? ORDER BY id DESC LIMIT ?",
        (campaign.id, -1 if newest is None else newest),
    )
    return found[::-1]
