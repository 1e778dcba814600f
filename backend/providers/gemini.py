"""Gemini through Google's SDK (`google-genai`), its retries off.

The SDK is asked for the raw HTTP response: what it makes of one loses the body that we store, and an answer
that was blocked, or an empty 200, looks to it like an answer without text.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import aiohttp
from google import genai
from google.genai import errors, types

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

GEMINI_URL = "https://generativelanguage.googleapis.com"

_ENDS: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "filter",
    "RECITATION": "filter",
    "LANGUAGE": "filter",
    "BLOCKLIST": "filter",
    "PROHIBITED_CONTENT": "filter",
    "SPII": "filter",
}


class Gemini:
    """A client of the Gemini API. An address of one's own (a proxy, a test) may need no key."""

    name = "gemini"

    def __init__(self, base_url: str = "", api_key: str = "", timeout_s: float = 120.0) -> None:
        if not api_key and not base_url:
            raise missing_key(self.name, "GEMINI_API_KEY")
        self._url = base_url or GEMINI_URL
        self._timeout_s = timeout_s
        self._client = genai.Client(
            vertexai=False,
            api_key=api_key or "none",
            http_options=types.HttpOptions(
                base_url=self._url,
                # One attempt: it also turns off the repeat after a lost connection that nothing mentions.
                retry_options=types.HttpRetryOptions(attempts=1),
            ),
        )

    async def send(self, request: ChatRequest) -> RawReply:
        config = _config(request)
        config.should_return_http_response = True
        try:
            async with self._failures(request.model):
                response = await self._client.aio.models.generate_content(
                    model=request.model, contents=_contents(request), config=config
                )
        except UnicodeDecodeError as error:  # the SDK decodes before anyone sees the bytes: they are here
            return RawReply(bytes(error.object))
        http = response.sdk_http_response
        return RawReply((http.body or "").encode() if http is not None else b"")

    def parse(self, raw: RawReply) -> Answer:
        data = read_json(raw, self.name)
        with reading(self.name, raw.body):
            usage = _usage(data.get("usageMetadata") or {})
            model = str(data.get("modelVersion") or "")
            blocked = str((data.get("promptFeedback") or {}).get("blockReason") or "")
            candidates = data.get("candidates") or []
            candidate = candidates[0] if candidates else {}
            word = str(candidate.get("finishReason") or "")
            parts = (candidate.get("content") or {}).get("parts") or []
            text = "".join(part.get("text") or "" for part in parts if not part.get("thought"))
            logprobs = _logprobs(candidate)
        if blocked and not candidates:
            return Answer("", "filter", usage, raw.body.decode(), model, f"prompt blocked: {blocked}")
        finish = _ENDS.get(word)
        if finish is None:
            raise unparsable(self.name, f"the answer has no good end mark (finishReason {word!r}).", raw.body)
        return Answer(well_formed(text), finish, usage, raw.body.decode(), model, word, logprobs)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[str, None]:
        ended = ""
        async with aclosing(paced(self._chunks(request), self._timeout_s, self.name)) as chunks:
            async for chunk in chunks:
                candidate = chunk.candidates[0] if chunk.candidates else None
                if candidate is None:
                    if chunk.prompt_feedback and chunk.prompt_feedback.block_reason:
                        reason = chunk.prompt_feedback.block_reason.value
                        raise ProviderError("refused", f"the prompt was blocked ({reason}).", self.name)
                    continue
                parts = candidate.content.parts if candidate.content else None
                text = "".join(part.text or "" for part in parts or () if not part.thought)
                if text:
                    yield well_formed(text)
                if candidate.finish_reason:
                    ended = candidate.finish_reason.value
        if not ended:
            raise unparsable(self.name, "the stream broke off before the answer's end.")
        if _ENDS.get(ended) == "filter":
            raise ProviderError("refused", f"the answer was stopped ({ended}).", self.name)

    async def models(self) -> list[str]:
        async with self._failures(""):
            pager = await self._client.aio.models.list()
            listed = [model async for model in pager]
        able = [
            m for m in listed if m.name and "generateContent" in (m.supported_actions or ["generateContent"])
        ]
        return sorted((m.name or "").removeprefix("models/") for m in able)

    async def aclose(self) -> None:
        await self._client.aio.aclose()
        self._client.close()

    async def _chunks(self, request: ChatRequest) -> AsyncGenerator[types.GenerateContentResponse, None]:
        async with self._failures(request.model, bounded=False):
            stream = await self._client.aio.models.generate_content_stream(
                model=request.model, contents=_contents(request), config=_config(request)
            )
            async for chunk in stream:
                yield chunk

    @asynccontextmanager
    async def _failures(self, model: str, *, bounded: bool = True) -> AsyncIterator[None]:
        """Names whatever the SDK raises; `bounded` by the time limit (a stream is paced instead)."""
        try:
            async with asyncio.timeout(self._timeout_s if bounded else None):
                yield
        except errors.APIError as error:
            body = json.dumps(error.details).encode()
            headers = getattr(error.response, "headers", None) or {}
            raise http_error(self.name, error.code or 500, headers, body, model=model) from error
        except TimeoutError as error:
            raise timed_out(self.name, self._timeout_s) from error
        except (aiohttp.ClientError, OSError) as error:
            raise lost_connection(self.name, self._url, error) from error
        except UnicodeDecodeError:
            raise
        except (errors.UnknownApiResponseError, ValueError) as error:
            raise unparsable(self.name, f"the SDK could not read the reply: {error}.") from error


def _contents(request: ChatRequest) -> list[types.Content]:
    return [
        types.Content(
            role="model" if turn.role == "assistant" else "user",
            parts=[types.Part(text=well_formed(turn.content))],
        )
        for turn in request.turns
    ]


def _config(request: ChatRequest) -> types.GenerateContentConfig:
    config = types.GenerateContentConfig(
        temperature=request.temperature,
        max_output_tokens=request.max_tokens,
        seed=request.seed,
        stop_sequences=list(request.stop) or None,
        system_instruction=well_formed(request.system) or None,
        response_logprobs=request.logprobs or None,
        # Both would send further requests by themselves.
        automatic_continuation=False,
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    if request.json_schema is not None:
        config.response_mime_type = "application/json"
        config.response_json_schema = request.json_schema
    return config


def _usage(usage: dict[str, Any]) -> Usage:
    """Gemini counts cached tokens inside the prompt's, and thoughts apart from the answer's."""
    return Usage(
        prompt_tokens=int(usage.get("promptTokenCount") or 0),
        completion_tokens=int(usage.get("candidatesTokenCount") or 0)
        + int(usage.get("thoughtsTokenCount") or 0),
        cached_tokens=int(usage.get("cachedContentTokenCount") or 0),
    )


def _logprobs(candidate: dict[str, Any]) -> tuple[float, ...]:
    chosen = (candidate.get("logprobsResult") or {}).get("chosenCandidates") or ()
    return tuple(float(token["logProbability"]) for token in chosen)
