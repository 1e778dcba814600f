"""Opens whatever answers behind a model's reference: an API, an Ollama tag, a GGUF, a deployment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from backend.deployment.vllm import vllm_at
from backend.hosts.catalog import open_named_host
from backend.hosts.placing import fetch_file
from backend.providers import Provider, ProviderConfig, ProviderError, ProviderKind, open_provider
from backend.providers.embedded import EmbeddedServer
from backend.providers.opening import provider_for
from backend.registry.references import ModelReferenceError, ResolvedModel, resolve
from backend.settings import Workspace
from backend.store import deployments
from backend.store.deployments import Deployment

OLLAMA_PORT = 11434
_REACH_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Answering:
    """A provider, the name under which it knows the model, and how many requests it takes at once."""

    provider: Provider
    model: str
    parallel: int


@asynccontextmanager
async def open_answering(ws: Workspace, reference: str) -> AsyncIterator[Answering]:
    """What answers for a model, for a block; a server that has to be started for it ends with the block.

    Raises ModelReferenceError for weights that no server serves, ProviderError, SettingsError, HostError.
    """
    async with AsyncExitStack() as stack:
        yield await _open(ws, await resolve(ws, reference), stack)


async def _open(ws: Workspace, model: ResolvedModel, stack: AsyncExitStack) -> Answering:
    if model.kind == "api":
        kind, _, name = model.location.partition("/")
        if kind not in get_args(ProviderKind):
            kinds = ", ".join(get_args(ProviderKind))
            raise ModelReferenceError(f"{model.reference}: no provider {kind}; there are: {kinds}")
        provider = await stack.enter_async_context(provider_for(ws, kind))
        return Answering(provider, name, ws.settings.provider(kind).parallel)
    if model.kind == "ollama":
        return await _ollama(ws, model.location, model.host, None, stack)
    if model.kind == "gguf":
        return await _gguf(ws, model.location, model.host, model.name, stack)
    if model.kind == "deployment":
        row = await deployments.current(ws.db, model.location)
        if row is None:
            raise ModelReferenceError(f"no deployment named {model.location}")
        return await _deployment(ws, row, stack)
    raise ModelReferenceError(
        f"{model.reference} is a set of weights that no server serves. Convert it with: hafs-tui deploy gguf "
        f"{model.reference} --convert-only (or key v of Deploy), then name the gguf:NAME that it says"
    )


async def _deployment(ws: Workspace, row: Deployment, stack: AsyncExitStack) -> Answering:
    if row.kind == "gguf":
        if row.state == "serving" and row.endpoint and await reachable(row.endpoint):
            return await _endpoint(ws, row.endpoint, str(row.details["alias"]), stack)
        return await _gguf(ws, str(row.details["gguf"]), row.host, row.name, stack)
    if row.kind == "ollama":
        return await _ollama(ws, str(row.details["tag"]), row.host, row.endpoint, stack)
    if row.kind == "vllm" and row.job_id is None and row.endpoint:  # served elsewhere, by no job of ours
        return await _endpoint(ws, row.endpoint, str(row.details.get("alias", row.name)), stack)
    if row.kind == "vllm":
        provider = await stack.enter_async_context(vllm_at(ws, row))
        return Answering(provider, str(row.details["alias"]), ws.settings.provider("openai").parallel)
    return await _open(ws, await resolve(ws, row.model), stack)


async def _gguf(ws: Workspace, path: str, host: str, name: str, stack: AsyncExitStack) -> Answering:
    file = Path(path) if host in ("", "local") else await fetch_file(ws, host, path)
    parallel = ws.settings.provider("embedded").parallel
    server = await stack.enter_async_context(EmbeddedServer(file, name, parallel=parallel))
    provider = open_provider(server.config(ws.settings.provider("embedded").timeout_s))
    stack.push_async_callback(provider.aclose)
    return Answering(provider, name, parallel)


async def _ollama(
    ws: Workspace, tag: str, host: str, base_url: str | None, stack: AsyncExitStack
) -> Answering:
    if host not in ("", "local") and base_url is None:
        remote = await stack.enter_async_context(open_named_host(ws, host))
        base_url = f"http://127.0.0.1:{await remote.forward(OLLAMA_PORT)}"
    provider = await stack.enter_async_context(provider_for(ws, "ollama", base_url=base_url))
    return Answering(provider, tag, ws.settings.provider("ollama").parallel)


async def _endpoint(ws: Workspace, url: str, model: str, stack: AsyncExitStack) -> Answering:
    settings = ws.settings.provider("embedded")
    provider = open_provider(ProviderConfig("embedded", url, timeout_s=settings.timeout_s))
    stack.push_async_callback(provider.aclose)
    return Answering(provider, model, settings.parallel)


async def reachable(endpoint: str) -> bool:
    """Whether an OpenAI-compatible endpoint answers now."""
    provider = open_provider(ProviderConfig("embedded", endpoint, timeout_s=_REACH_TIMEOUT_S))
    try:
        await provider.models()
    except ProviderError:
        return False
    finally:
        await provider.aclose()
    return True
