"""Any server that speaks OpenAI's chat completions: OpenAI, vLLM, llama.cpp, LM Studio, the embedded model.

It is called through aiohttp and not through OpenAI's SDK: that costs 20 times the CPU for each request,
repeats requests by itself, and returns a `str` where a server answers with a web page.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit

import aiohttp

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
    MAX_BODY_BYTES,
    http_error,
    lost_connection,
    missing_key,
    paced,
    read_json,
    reading,
    timed_out,
    unparsable,
)

OPENAI_URL = "https://api.openai.com/v1"

_ENDS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "tool_calls": "stop",
    "length": "length",
    "content_filter": "filter",
}


class OpenAICompatible:
    """A client of one endpoint. `base_url` ends in its version ("/v1"), added where there is no path."""

    def __init__(
        self, base_url: str = "", api_key: str = "", timeout_s: float = 120.0, *, name: str = "openai"
    ) -> None:
        self._url = _with_version(base_url or OPENAI_URL)
        self._official = urlsplit(self._url).hostname == "api.openai.com"
        if self._official and not api_key:
            raise missing_key(name, "OPENAI_API_KEY")
        self._name = name
        self._timeout_s = timeout_s
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=aiohttp.ClientTimeout(total=None),  # ours bounds the whole call
            connector=aiohttp.TCPConnector(limit=0),  # `limits` decides what is in flight
        )

    @property
    def name(self) -> str:
        return self._name

    async def send(self, request: ChatRequest) -> RawReply:
        return RawReply(await self._call("POST", "/chat/completions", request.model, self._body(request)))

    def parse(self, raw: RawReply) -> Answer:
        data = read_json(raw, self._name)
        if data.get("error"):
            raise unparsable(self._name, f"the reply is an error: {data['error']}.", raw.body)
        with reading(self._name, raw.body):
            choice = data["choices"][0]
            message = choice["message"]
            text = well_formed(message.get("content") or "")
            word = choice.get("finish_reason")
            usage = _usage(data.get("usage") or {})
            logprobs = tuple(float(t["logprob"]) for t in (choice.get("logprobs") or {}).get("content") or ())
            model = str(data.get("model") or "")
        finish = "filter" if message.get("refusal") else _ENDS.get(str(word))
        if finish is None:
            raise unparsable(self._name, f"the answer has no end mark (finish_reason {word!r}).", raw.body)
        return Answer(text, finish, usage, raw.body.decode(), model, str(word), logprobs)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[str, None]:
        body = self._body(request) | {"stream": True}
        ended = False
        async with aclosing(paced(self._events(request.model, body), self._timeout_s, self._name)) as events:
            async for data in events:
                if data.get("error"):
                    raise ProviderError(
                        "server", f"the stream ended in an error: {data['error']}", self._name
                    )
                with reading(self._name, b""):
                    choice = (data.get("choices") or [{}])[0]
                    ended = ended or choice.get("finish_reason") is not None
                    text = well_formed((choice.get("delta") or {}).get("content") or "")
                if text:
                    yield text
        if not ended:
            raise unparsable(self._name, "the stream broke off before the answer's end.")

    async def models(self) -> list[str]:
        body = await self._call("GET", "/models", "", None)
        data = read_json(RawReply(body), self._name)
        with reading(self._name, body):
            return sorted(str(model["id"]) for model in data["data"])

    async def aclose(self) -> None:
        await self._session.close()

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [{"role": m.role, "content": well_formed(m.content)} for m in request.messages],
        }
        if request.max_tokens is not None:
            body["max_completion_tokens" if self._official else "max_tokens"] = request.max_tokens
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.seed is not None:
            body["seed"] = request.seed
        if request.stop:
            body["stop"] = list(request.stop)
        if request.logprobs:
            body["logprobs"] = True
        if request.json_schema is not None:
            schema = {"name": "answer", "schema": request.json_schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    async def _call(self, method: str, path: str, model: str, body: dict[str, Any] | None) -> bytes:
        """The body of a 200 reply."""
        url = self._url + path
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._session.request(method, url, json=body, allow_redirects=False) as reply,
            ):
                content = await _read(reply, self._name)
                if reply.status != 200:
                    raise http_error(self._name, reply.status, reply.headers, content, model=model)
                return content
        except TimeoutError as error:
            raise timed_out(self._name, self._timeout_s) from error
        except (aiohttp.ClientError, OSError) as error:
            raise lost_connection(self._name, url, error) from error

    async def _events(self, model: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The JSON objects of a server-sent event stream, up to its end or "[DONE]"."""
        url = self._url + "/chat/completions"
        try:
            async with self._session.post(url, json=body, allow_redirects=False) as reply:
                if reply.status != 200:
                    content = await _read(reply, self._name)
                    raise http_error(self._name, reply.status, reply.headers, content, model=model)
                async for line in reply.content:
                    if not line.startswith(b"data:"):
                        continue
                    data = line.removeprefix(b"data:").strip()
                    if data == b"[DONE]":
                        return
                    yield _event(data, self._name)
        except ValueError as error:  # a line longer than aiohttp reads
            raise unparsable(self._name, f"the stream is not one of events: {error}.") from error
        except (aiohttp.ClientError, OSError) as error:
            raise lost_connection(self._name, url, error) from error


def _with_version(url: str) -> str:
    """The URL without a last slash, and with "/v1" where it names a host and nothing more."""
    url = url.rstrip("/")
    return url if urlsplit(url).path else url + "/v1"


async def _read(reply: aiohttp.ClientResponse, provider: str) -> bytes:
    """The whole body, refused as soon as it passes MAX_BODY_BYTES."""
    body = bytearray()
    async for chunk in reply.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            head = bytes(body[:65_536])
            raise unparsable(provider, f"the reply is larger than {MAX_BODY_BYTES:,} bytes.", head)
    return bytes(body)


def _event(data: bytes, provider: str) -> dict[str, Any]:
    try:
        event = json.loads(data.decode("utf-8"))
    except ValueError as error:
        raise unparsable(provider, f"a piece of the stream is not JSON: {error}.", data) from error
    if not isinstance(event, dict):
        raise unparsable(provider, "a piece of the stream is not an object.", data)
    return event


def _usage(usage: dict[str, Any]) -> Usage:
    """OpenAI counts cached tokens inside the prompt's, and reasoning inside the completion's."""
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Usage(int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0), int(cached))
