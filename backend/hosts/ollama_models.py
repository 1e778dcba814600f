"""The Ollama models of a host, through a forwarded port: list with sizes, pull, remove."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from backend.hosts.catalog import open_named_host
from backend.settings import Workspace
from remote import HostError

if TYPE_CHECKING:
    from backend.providers.ollama_client import Ollama, OllamaModel

OLLAMA_PORT = 11434
OnPull = Callable[[str, int, int], None]
"""Called with (what, bytes done, bytes in all) while a model is pulled."""


async def list_models(ws: Workspace, host: str, port: int = OLLAMA_PORT) -> list[OllamaModel]:
    """By name, each with its size. Raises SettingsError, HostError, ProviderError."""
    async with _ollama(ws, host, port) as server:
        return await _listed(server)


async def pull_model(
    ws: Workspace, host: str, name: str, on_pull: OnPull, port: int = OLLAMA_PORT
) -> list[OllamaModel]:
    """Have a host fetch a model; the models there then. Raises SettingsError, HostError, ProviderError."""
    async with _ollama(ws, host, port) as server:
        status = ""
        async for told in server.pull(name):
            status = told.status
            on_pull(f"{name}: {status}", told.completed, told.total)
        if status != "success":
            message = f"Ollama ended with {status!r} before the model was there"
            raise HostError(host, f"pull {name}", message, "Pull it again: what has come is kept.")
        return await _listed(server)


async def remove_model(ws: Workspace, host: str, name: str, port: int = OLLAMA_PORT) -> list[OllamaModel]:
    """Take a model from a host; the models there then. Raises SettingsError, HostError, ProviderError."""
    async with _ollama(ws, host, port) as server:
        await server.delete(name)
        return await _listed(server)


@asynccontextmanager
async def _ollama(ws: Workspace, host: str, port: int) -> AsyncIterator[Ollama]:
    from backend.providers.ollama_client import Ollama

    async with open_named_host(ws, host) as opened:
        server = Ollama(f"http://127.0.0.1:{await opened.forward(port)}")
        try:
            yield server
        finally:
            await server.aclose()


async def _listed(server: Ollama) -> list[OllamaModel]:
    return sorted(await server.tags(), key=lambda model: model.name)
