"""Opens a provider by its kind and the workspace's settings: key, address, time limit.

The embedded model gets its server here, one for all who use it at the same time, which ends with the last.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from backend.providers import Provider, ProviderConfig, load_sdk, open_provider
from backend.providers.embedded import bundled_gguf
from backend.providers.keys import resolve_key
from backend.providers.sharing import shared_server
from backend.settings import Workspace


@asynccontextmanager
async def provider_for(
    ws: Workspace, kind: str, *, base_url: str | None = None, gguf: Path | None = None
) -> AsyncIterator[Provider]:
    """The provider for a block. `base_url` and `gguf` (embedded only) win over the settings.

    Raises ProviderError: a missing key (naming the variable), no engine or no model for "embedded".
    """
    settings = ws.settings.provider(kind)
    address = base_url or settings.base_url or ""
    if kind == "embedded" and not address:
        async with (
            shared_server(ws, gguf or bundled_gguf(), settings.parallel) as server,
            _opened(server.config(settings.timeout_s)) as provider,
        ):
            yield provider
        return
    key = "" if kind in ("embedded", "ollama") else await asyncio.to_thread(resolve_key, kind, address)
    async with _opened(ProviderConfig(kind, address, key, settings.timeout_s)) as provider:  # type: ignore[arg-type]
        yield provider


@asynccontextmanager
async def _opened(config: ProviderConfig) -> AsyncIterator[Provider]:
    await asyncio.to_thread(load_sdk, config.kind)
    provider = open_provider(config)
    try:
        yield provider
    finally:
        await provider.aclose()
