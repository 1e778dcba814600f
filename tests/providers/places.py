"""The four APIs of the provider tests: a fake, and the provider that talks to it through the real SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from backend.providers import Provider, ProviderConfig, ProviderKind, open_provider
from tests.servers.anthropic_server import AnthropicServer
from tests.servers.faults import FakeApi
from tests.servers.gemini_server import GeminiServer
from tests.servers.ollama_server import OllamaServer
from tests.servers.openai_server import OpenAIServer

SERVERS: dict[ProviderKind, type[Any]] = {
    "openai": OpenAIServer,
    "gemini": GeminiServer,
    "anthropic": AnthropicServer,
    "ollama": OllamaServer,
}
KINDS: list[ProviderKind] = list(SERVERS)


@asynccontextmanager
async def place(
    kind: ProviderKind, timeout_s: float = 20.0, **options: Any
) -> AsyncIterator[tuple[FakeApi, Provider]]:
    """A running fake and an open provider."""
    async with SERVERS[kind](**options) as server:
        provider = open_provider(ProviderConfig(kind, server.base_url, "test-key", timeout_s))
        try:
            yield server, provider
        finally:
            await provider.aclose()
