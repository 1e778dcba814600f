"""Claude through Anthropic's SDK, its retries off.

The SDK is asked for the raw response, whose bytes are stored; it would return a `str` for a web page, and an
answer without end mark for a stream that broke off.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import anthropic
import httpx2

from backend.providers.base import (
    Answer,
    ChatRequest,
    FinishReason,
    ProviderError,
    RawReply,
    Usage,
    well_formed,
)
from backend.providers.wire import (
    http_error,
    lost_connection,
    missing_key,
    paced,
    read_json,
    reading,
    timed_out,
    unparsable,
)

CLAUDE_URL = "https://api.anthropic.com"
DEFAULT_MAX_TOKENS = 4096
"""The API wants a limit; this one is sent where the request has none."""

_ENDS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "filter",
}
# Models since Opus 4.7 answer a temperature with an error; these older ones take it (0 to 1).
_TAKES_TEMPERATURE = (
    *("claude-3", "claude-haiku-4", "claude-sonnet-4"),
    *("claude-opus-4-0", "claude-opus-4-1", "claude-opus-4-5", "claude-opus-4-6"),
)


class Claude:
    """A client of the Messages API. An address of one's own (a proxy, a test) may need no key."""

    name = "anthropic"

    def __init__(self, base_url: str = "", api_key: str = "", timeout_s: float = 120.0) -> None:
        if not api_key and not base_url:
            raise missing_key(self.name, "ANTHROPIC_API_KEY")
        self._url = base_url or CLAUDE_URL
        self._timeout_s = timeout_s
        self._client = anthropic.AsyncAnthropic(
            api_key=api_key or "none", base_url=self._url, max_retries=0, timeout=None
        )

    async def send(self, request: ChatRequest) -> RawReply:
        async with self._failures(request.model):
            reply = await self._client.messages.with_raw_response.create(**_body(request))
            return RawReply(reply.http_response.content)

    def parse(self, raw: RawReply) -> Answer:
        data = read_json(raw, self.name)
        if data.get("type") == "error":
            raise unparsable(self.name, f"the reply is an error: {data.get('error')}.", raw.body)
        with reading(self.name, raw.body):
            blocks = data["content"]
            text = "".join(block["text"] for block in blocks if block["type"] == "text")
            word = data.get("stop_reason")
            usage = _usage(data.get("usage") or {})
            model = str(data.get("model") or "")
        finish = _ENDS.get(str(word))
        if finish is None:
            raise unparsable(self.name, f"the answer has no good end mark (stop_reason {word!r}).", raw.body)
        return Answer(well_formed(text), finish, usage, raw.body.decode(), model, str(word))

    async def stream(self, request: ChatRequest) -> AsyncGenerator[str, None]:
        ended = ""
        async with aclosing(paced(self._events(request), self._timeout_s, self.name)) as events:
            async for event in events:
                if event.type == "content_block_delta" and event.delta.type == "text_delta":
                    yield well_formed(event.delta.text)
                elif event.type == "message_delta":
                    ended = event.delta.stop_reason or ended
        if not ended:
            raise unparsable(self.name, "the stream broke off before the answer's end.")
        if ended == "refusal":
            raise ProviderError("refused", "the answer was declined (refusal).", self.name)

    async def models(self) -> list[str]:
        async with self._failures(""):
            return sorted([model.id async for model in self._client.models.list()])

    async def aclose(self) -> None:
        await self._client.close()

    async def _events(self, request: ChatRequest) -> AsyncGenerator[Any, None]:
        async with self._failures(request.model, bounded=False):
            stream = await self._client.messages.create(**_body(request), stream=True)
            async with stream:
                async for event in stream:
                    yield event

    @asynccontextmanager
    async def _failures(self, model: str, *, bounded: bool = True) -> AsyncIterator[None]:
        """Names whatever the SDK raises; `bounded` by the time limit (a stream is paced instead)."""
        try:
            async with asyncio.timeout(self._timeout_s if bounded else None):
                yield
        except anthropic.APIStatusError as error:
            if error.status_code == 200:  # an error event inside a stream
                raise ProviderError(*_event_error(error), self.name) from error
            headers, body = error.response.headers, error.response.content
            raise http_error(self.name, error.status_code, headers, body, model=model) from error
        except (TimeoutError, anthropic.APITimeoutError) as error:
            raise timed_out(self.name, self._timeout_s) from error
        except anthropic.APIConnectionError as error:
            raise lost_connection(self.name, self._url, error.__cause__ or error) from error
        except (httpx2.HTTPError, OSError) as error:
            raise lost_connection(self.name, self._url, error) from error
        except (anthropic.APIError, ValueError, AssertionError) as error:
            raise unparsable(self.name, f"the SDK could not read the reply: {error}.") from error


def _event_error(error: anthropic.APIStatusError) -> tuple[Any, str]:
    kinds = {"overloaded_error": "overloaded", "rate_limit_error": "rate_limit"}
    return kinds.get(str(error.type), "server"), f"the stream broke off: {error.message}."


def _body(request: ChatRequest) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": request.model,
        "max_tokens": request.max_tokens or DEFAULT_MAX_TOKENS,
        "messages": [{"role": turn.role, "content": well_formed(turn.content)} for turn in request.turns],
    }
    if request.system:
        body["system"] = well_formed(request.system)
    if request.stop:
        body["stop_sequences"] = list(request.stop)
    if request.json_schema is not None:
        body["output_config"] = {"format": {"type": "json_schema", "schema": request.json_schema}}
    if request.temperature is not None and request.model.startswith(_TAKES_TEMPERATURE):
        body["extra_body"] = {"temperature": min(request.temperature, 1.0)}  # the SDK knows it no more
    return body


def _usage(usage: dict[str, Any]) -> Usage:
    """Claude counts cached tokens apart from the input's: the prompt is the sum of the three."""
    read = int(usage.get("cache_read_input_tokens") or 0)
    written = int(usage.get("cache_creation_input_tokens") or 0)
    return Usage(
        prompt_tokens=int(usage.get("input_tokens") or 0) + read + written,
        completion_tokens=int(usage.get("output_tokens") or 0),
        cached_tokens=read,
        cache_write_tokens=written,
    )
