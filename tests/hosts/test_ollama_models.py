"""The Ollama models of a host behind an sshd: with sizes, pulled with progress, removed."""

from __future__ import annotations

import pytest

from backend.hosts.ollama_models import list_models, pull_model, remove_model
from backend.providers.base import ProviderError
from backend.settings import Workspace
from tests.fixtures.workspace_hosts import Loop
from tests.servers.ollama_server import OllamaServer
from tests.servers.sshd import free_port


async def test_models_of_a_host_come_and_go(ws: Workspace, loop_host: Loop) -> None:
    heard: list[tuple[str, int, int]] = []
    async with OllamaServer(models=()) as server:
        port = int(server.url.rpartition(":")[2])
        assert await list_models(ws, "loop", port) == []
        await pull_model(ws, "loop", "qwen2.5-coder:14b", lambda *told: heard.append(told), port)
        found = await pull_model(ws, "loop", "llama3:8b", lambda *told: heard.append(told), port)
        assert [(model.name, model.size) for model in found] == [
            ("llama3:8b", 3000),
            ("qwen2.5-coder:14b", 3000),
        ]
        assert [done for what, done, total in heard if "qwen" in what and total] == [0, 1000, 2000, 3000]
        assert [model.name for model in await remove_model(ws, "loop", "llama3:8b", port)] == [
            "qwen2.5-coder:14b"
        ]
        with pytest.raises(ProviderError, match="does not exist"):
            await pull_model(ws, "loop", "missing:1b", lambda *told: None, port)
        with pytest.raises(ProviderError):
            await remove_model(ws, "loop", "missing:1b", port)


async def test_a_host_without_ollama_says_so(ws: Workspace, loop_host: Loop) -> None:
    with pytest.raises(ProviderError):
        await list_models(ws, "loop", free_port())
