"""The providers of one campaign's run: its own, and the local one of a hybrid campaign with its GPU's readings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from backend.generation.routing import Choice, Side, choose
from backend.hosts.catalog import open_named_host
from backend.hosts.gauges import Gauges, watch_gauges
from backend.providers import Provider, ProviderError
from backend.providers.opening import provider_for
from backend.providers.sharing import Entrance, entrance
from backend.settings import Workspace
from backend.store.campaigns import Campaign
from backend.store.clock import now
from remote import HostError, Reading

OLLAMA_PORT = 11434
Readings = Callable[[], Reading | None]


@dataclass(slots=True)
class Route:
    """One way that requests may take. `off` says why it takes no more in this run."""

    side: Side
    provider: Provider
    model: str
    entrance: Entrance
    off: str | None = None


class LocalModelError(ValueError):
    """The name of a local model that is none; the message says what is expected."""


def local_model(reference: str) -> tuple[str, str]:
    """(model, host) of `ollama:MODEL[@host]`, host "local" where none is named. Raises LocalModelError."""
    scheme, _, rest = reference.partition(":")
    model, _, host = rest.partition("@")
    if scheme != "ollama" or not model:
        raise LocalModelError(f"{reference!r} is no local model: expected ollama:MODEL or ollama:MODEL@HOST")
    return model, host or "local"


@dataclass(slots=True)
class Routes:
    """The ways of a run. `readings` gives the newest reading of the local side's GPU; `without_local` says why
    a hybrid campaign has no local side in this run."""

    ws: Workspace
    api: Route
    local: Route | None = None
    without_local: str | None = None
    readings: Readings = lambda: None
    clock: Callable[[], float] = now

    def choose(self, ordinal: int, *, after: str | None = None) -> tuple[Route, str | None]:
        """The route of a request, and why as JSON (None: the campaign has only one). `after` says how the
        local side failed at this very request: it is not asked again."""
        if self.local is None:
            why = self.without_local
            return self.api, Choice("api", why, None).as_json() if why else None
        choice = choose(self.readings(), ordinal, self.clock(), self.ws.settings.hybrid)
        if after is not None:
            choice = Choice("api", f"the local model gave no answer ({after})", choice.reading)
        routes = {"local": self.local, "api": self.api}
        route, other = routes[choice.side], routes["api" if choice.side == "local" else "local"]
        if route.off is not None and other.off is None:
            choice = Choice(other.side, f"the {route.side} is off ({route.off})", choice.reading)
            route = other
        return route, choice.as_json()

    def of(self, provider: str) -> Route:
        """The route whose provider answered a stored request."""
        if self.local is not None and self.local.provider.name == provider:
            return self.local
        return self.api

    def switch_off(self, route: Route, error: ProviderError) -> bool:
        """No more requests to this route in this run; whether another one is left."""
        route.off = str(error)
        return any(each is not None and each.off is None for each in (self.api, self.local))


@asynccontextmanager
async def open_routes(
    ws: Workspace, campaign: Campaign, *, provider: Provider | None = None, readings: Readings | None = None
) -> AsyncIterator[Routes]:
    """The campaign's routes for a block. `provider` takes the place of its own one, `readings` of its host's.

    Raises ProviderError where the campaign's own cannot be opened, SettingsError for a host that is not known.
    """
    async with AsyncExitStack() as stack:
        if provider is None:
            opening = provider_for(ws, campaign.provider, base_url=campaign.base_url)
            provider = await stack.enter_async_context(opening)
        # Who starts a campaign wants it tried, also while another one waits out what the provider asked for.
        way = entrance(ws, campaign.provider, campaign.base_url or "")
        way.limit.forget_pause()
        routes = Routes(ws, Route("api", provider, campaign.model, way))
        if campaign.local is not None:
            model, host = local_model(campaign.local)
            try:
                routes.local = await _local(ws, model, host, stack)
                routes.readings = readings or await _watched(ws, host, stack)
            except (HostError, ProviderError) as error:  # the campaign goes on with its own provider
                routes.without_local = f"the local model cannot be reached ({error})"
        yield routes


async def _local(ws: Workspace, model: str, host: str, stack: AsyncExitStack) -> Route:
    address = None
    if host != "local":
        opened = await stack.enter_async_context(open_named_host(ws, host))
        address = f"http://127.0.0.1:{await opened.forward(OLLAMA_PORT)}"
    provider = await stack.enter_async_context(provider_for(ws, "ollama", base_url=address))
    return Route("local", provider, model, entrance(ws, "ollama", f"{host}"))


async def _watched(ws: Workspace, host: str, stack: AsyncExitStack) -> Readings:
    """The newest reading of the host's least busy GPU, watched until the block ends."""
    gauges = Gauges(seconds=4)
    interval = ws.settings.hybrid.monitor_interval_sec
    watching = asyncio.create_task(watch_gauges(ws, gauges, [host], interval), name=f"gauges of {host}")

    async def end() -> None:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    stack.push_async_callback(end)

    def newest() -> Reading | None:
        gpus = [r for r in gauges.latest() if r.index >= 0 and r.utilization is not None]
        return min(gpus, key=lambda r: r.utilization or 0.0, default=None)

    return newest
