"""The model side of Ollama: blobs by digest, create with progress, show, list, delete."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backend.providers import ProviderError, ask, complete
from backend.providers.ollama_client import Ollama, Progress
from tests.servers.ollama_server import OllamaServer


@pytest.fixture
async def server() -> AsyncIterator[OllamaServer]:
    async with OllamaServer(models=()) as server:
        yield server


@pytest.fixture
async def client(server: OllamaServer) -> AsyncIterator[Ollama]:
    client = Ollama(server.base_url)
    yield client
    await client.aclose()


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(range(256)) * 10_000)
    return path


async def make(client: Ollama, name: str, gguf: Path) -> list[Progress]:
    digest = await client.upload_blob(gguf)
    lines = client.create_model(
        name, files={gguf.name: digest}, template="{{ .Prompt }}", parameters={"stop": "X"}
    )
    return [line async for line in lines]


async def test_a_model_is_made_from_a_file_and_answers(
    server: OllamaServer, client: Ollama, gguf: Path
) -> None:
    lines = await make(client, "mine", gguf)
    digest = f"sha256:{hashlib.sha256(gguf.read_bytes()).hexdigest()}"
    assert server.blobs == {digest: gguf.read_bytes()}
    assert lines[-1].status == "success"
    made = server.created["mine:latest"]
    assert (made["files"], made["template"]) == ({"model.gguf": digest}, "{{ .Prompt }}")
    assert made["parameters"] == {"stop": "X"}
    assert (await complete(client, ask("mine", "Hi"))).text == "You said: Hi"
    tags = await client.tags()
    assert [(tag.name, tag.size) for tag in tags] == [("mine:latest", gguf.stat().st_size)]
    assert (await client.show("mine"))["template"] == "{{ .Prompt }}"
    assert await client.loaded() == ["mine:latest"]


async def test_a_blob_that_is_there_is_not_sent_again(
    server: OllamaServer, client: Ollama, gguf: Path
) -> None:
    assert await client.upload_blob(gguf) == await client.upload_blob(gguf)
    assert [r.method for r in server.journal] == ["HEAD", "POST", "HEAD"]


async def test_a_blob_that_arrives_changed_is_refused(
    client: Ollama, gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.providers.ollama_client._sha256", lambda _path: "0" * 64)
    with pytest.raises(ProviderError, match="digest mismatch"):
        await client.upload_blob(gguf)


async def test_making_a_model_from_a_blob_that_is_not_there_says_so(client: Ollama) -> None:
    with pytest.raises(ProviderError, match="not found"):
        [line async for line in client.create_model("mine", files={"a.gguf": "sha256:" + "0" * 64})]


async def test_a_deleted_model_is_gone(client: Ollama, gguf: Path) -> None:
    await make(client, "mine", gguf)
    await client.delete("mine")
    assert await client.models() == []
    for call in (client.delete("mine"), client.show("mine"), client.send(ask("mine", "Hi"))):
        with pytest.raises(ProviderError, match="'mine' not found") as caught:
            await call
        assert caught.value.kind == "unknown_model"
