"""What all campaigns of a process share: the limit and the rate window of each provider's address, and one
llama.cpp server for each model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakKeyDictionary

from backend.providers.embedded import BUNDLED_MODEL, EmbeddedServer
from backend.providers.limits import AdaptiveLimit
from backend.providers.windows import RateWindow
from backend.settings import Workspace
from backend.store import Database

MOST_IN_FLIGHT = 512
START_IN_FLIGHT = 16


@dataclass(frozen=True, slots=True)
class Entrance:
    """What every request to one address passes: `window` before it is a row, `limit` when it is sent."""

    limit: AdaptiveLimit
    window: RateWindow


@dataclass(slots=True)
class _Served:
    server: EmbeddedServer
    users: int = 0


@dataclass(slots=True)
class _Shared:
    entrances: dict[tuple[str, str], Entrance] = field(default_factory=dict)
    servers: dict[Path, _Served] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


# Of an open workspace, and gone with it.
_SHARED: WeakKeyDictionary[Database, _Shared] = WeakKeyDictionary()


def entrance(ws: Workspace, kind: str, address: str = "") -> Entrance:
    """The one entrance to this provider and address that everybody in this process uses."""
    known = _SHARED.setdefault(ws.db, _Shared()).entrances
    settings = ws.settings.provider(kind)
    key = (kind, address or settings.base_url or "")
    if key not in known:
        limit = AdaptiveLimit(MOST_IN_FLIGHT, START_IN_FLIGHT)
        known[key] = Entrance(limit, RateWindow(settings.rpm, settings.tpm))
    return known[key]


@asynccontextmanager
async def shared_server(ws: Workspace, gguf: Path, parallel: int) -> AsyncIterator[EmbeddedServer]:
    """The llama.cpp server of a model, started by the first who needs it and ended with the last. Raises
    ProviderError where it cannot be started."""
    shared = _SHARED.setdefault(ws.db, _Shared())
    async with shared.lock:
        served = shared.servers.get(gguf)
        if served is None or not served.server.alive:
            served = _Served(EmbeddedServer(gguf, BUNDLED_MODEL, parallel=parallel))
            await served.server.__aenter__()
            shared.servers[gguf] = served
        served.users += 1
    try:
        yield served.server
    finally:
        served.users -= 1
        if not served.users:
            if shared.servers.get(gguf) is served:
                del shared.servers[gguf]
            await served.server.__aexit__(None, None, None)
