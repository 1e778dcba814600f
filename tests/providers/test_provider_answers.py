"""What each provider sends and reads when all goes well: text, usage, the end, options, streams, models."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import pytest

from backend.providers import Message, ProviderConfig, ProviderKind, Usage, ask, complete, open_provider
from backend.providers.base import ChatRequest
from tests.providers.places import KINDS, place

EVERYTHING = ChatRequest(
    "test-model",
    (
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message("assistant", "Hello"),
        Message("user", "How are you?"),
    ),
    temperature=0.3,
    max_tokens=77,
    seed=5,
    stop=("END",),
    json_schema={"type": "object", "properties": {"a": {"type": "string"}}},
)

USAGE = {
    "openai": Usage(3, 5, cached_tokens=1),
    "gemini": Usage(3, 5 + 3, cached_tokens=1),  # three thoughts are charged too
    "anthropic": Usage(3 + 4 + 2, 5, cached_tokens=4, cache_write_tokens=2),
    "ollama": Usage(3, 5),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_has_its_text_end_usage_and_model(kind: ProviderKind) -> None:
    async with place(kind) as (server, provider):
        answer = await complete(provider, ask("test-model", "tell me more"))
    assert provider.name == kind
    assert (answer.text, answer.finish_reason) == ("You said: tell me more", "stop")
    assert (answer.usage, answer.model) == (USAGE[kind], "test-model")
    assert server.paid[0].answered


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_gives_the_same_answer_in_pieces(kind: ProviderKind) -> None:
    async with place(kind) as (server, provider):
        pieces = [piece async for piece in provider.stream(ask("test-model", "tell me more"))]
    assert "".join(pieces).strip() == "You said: tell me more"
    assert len(pieces) == 5
    assert len(server.paid) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_may_be_left_early(kind: ProviderKind) -> None:
    async with place(kind) as (server, provider):
        async with aclosing(provider.stream(ask("test-model", "tell me more " * 500))) as pieces:
            assert await anext(pieces) == "You "
        answer = await complete(provider, ask("test-model", "tell me more"))
    assert answer.text == "You said: tell me more"
    assert len(server.paid) == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_models_are_listed(kind: ProviderKind) -> None:
    async with place(kind, models=("model-b", "model-a")) as (_, provider):
        assert await provider.models() == ["model-a", "model-b"]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_that_was_cut_passes_where_that_is_accepted(kind: ProviderKind) -> None:
    from tests.servers.faults import Fault, always

    async with place(kind, script=always(Fault("truncation"))) as (_, provider):
        answer = await complete(provider, ask("test-model", "tell me more"), accept_cut=True)
    assert (answer.finish_reason, answer.text) == ("length", "You said: tell me more")
    assert answer.usage == USAGE[kind]


async def test_openai_sends_every_option() -> None:
    body = await sent("openai", EVERYTHING)
    assert [m["role"] for m in body["messages"]] == ["system", "user", "assistant", "user"]
    assert (body["temperature"], body["max_tokens"], body["seed"], body["stop"]) == (0.3, 77, 5, ["END"])
    assert body["response_format"]["json_schema"]["schema"] == EVERYTHING.json_schema


async def test_gemini_sends_every_option() -> None:
    body = await sent("gemini", EVERYTHING)
    config = body["generationConfig"]
    assert [c["role"] for c in body["contents"]] == ["user", "model", "user"]
    assert body["systemInstruction"]["parts"][0]["text"] == "Be brief."
    assert (config["temperature"], config["maxOutputTokens"], config["seed"]) == (0.3, 77, 5)
    assert config["stopSequences"] == ["END"]
    assert config["responseMimeType"] == "application/json"
    assert EVERYTHING.json_schema in (config.get("responseJsonSchema"), config.get("responseSchema"))


async def test_claude_sends_every_option_that_its_model_takes() -> None:
    body = await sent("anthropic", EVERYTHING)
    assert [m["role"] for m in body["messages"]] == ["user", "assistant", "user"]
    assert (body["system"], body["max_tokens"], body["stop_sequences"]) == ("Be brief.", 77, ["END"])
    assert body["output_config"]["format"]["schema"] == EVERYTHING.json_schema
    assert "temperature" not in body
    older = await sent("anthropic", ask("claude-haiku-4-5", "Hi", temperature=1.4))
    assert (older["temperature"], older["max_tokens"]) == (1.0, 4096)


async def test_ollama_sends_every_option() -> None:
    body = await sent("ollama", EVERYTHING)
    assert [m["role"] for m in body["messages"]] == ["system", "user", "assistant", "user"]
    assert body["options"] == {"temperature": 0.3, "num_predict": 77, "seed": 5, "stop": ["END"]}
    assert body["format"] == EVERYTHING.json_schema
    assert body["stream"] is False


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_not_asked_for_is_not_sent(kind: ProviderKind) -> None:
    body = await sent(kind, ask("test-model", "Hi"))
    text = str(body.keys()) + str(body.get("generationConfig", "")) + str(body.get("options") or "")
    for name in ("temperature", "seed", "stop", "top_p", "response_format", "system"):
        assert name not in text


async def sent(kind: ProviderKind, request: ChatRequest) -> dict[str, Any]:
    """The body of the request as the server received it."""
    async with place(kind, models=(request.model,)) as (server, provider):
        await provider.send(request)
        return server.paid[0].body


async def test_logprobs_are_read_where_the_server_gives_them() -> None:
    async with place("openai") as (_, provider):
        asked_for = await complete(provider, ask("test-model", "Hi", logprobs=True))
        not_asked_for = await complete(provider, ask("test-model", "Hi"))
    assert asked_for.logprobs == (-0.5, -0.5, -0.5)
    assert not_asked_for.logprobs == ()


def test_a_key_is_never_shown() -> None:
    assert "sk-secret" not in repr(ProviderConfig("openai", "http://x", "sk-secret"))


@pytest.mark.parametrize("kind", ["openai", "gemini", "anthropic"])
async def test_a_public_address_without_a_key_says_which_variable(kind: ProviderKind) -> None:
    from backend.providers import ProviderError

    with pytest.raises(ProviderError, match=r"_API_KEY is not set") as caught:
        open_provider(ProviderConfig(kind))
    assert (caught.value.kind, caught.value.provider) == ("auth", kind)


def test_equal_requests_have_equal_keys_and_others_do_not() -> None:
    one, same = ask("m", "Hi", temperature=0.5), ask("m", "Hi", temperature=0.5)
    assert one.key("openai") == same.key("openai")
    others = [one.key("ollama"), ask("m", "Hi").key("openai"), ask("m", "Hi ", temperature=0.5).key("openai")]
    assert one.key("openai") not in others
    assert len(set(others)) == 3
