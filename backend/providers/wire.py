"""What the providers' wire formats share: reading a body that may be anything, and naming HTTP failures."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from backend.providers.base import FailureKind, ProviderError, RawReply

MAX_BODY_BYTES = 8 * 1024 * 1024
"""No answer of a language model is this long; a body that is, is something else."""
MAX_STREAM_S = 1800.0
"""A streamed answer may take longer than a call's limit as long as pieces keep coming, but not for ever."""

_T = TypeVar("_T")
_KEY_REMEDY = {
    "gemini": "Set GEMINI_API_KEY to a key of Google AI Studio.",
    "anthropic": "Set ANTHROPIC_API_KEY to a key of the Claude console.",
    "openai": "Set OPENAI_API_KEY to a key that this endpoint accepts.",
}


def read_json(raw: RawReply, provider: str) -> dict[str, Any]:
    """The JSON object in a raw reply. Raises ProviderError("unparsable") for anything else: HTML, an empty
    or cut body, bytes that are not UTF-8, more than MAX_BODY_BYTES."""
    body = raw.body
    if len(body) > MAX_BODY_BYTES:
        raise unparsable(provider, f"the reply has {len(body):,} bytes (limit {MAX_BODY_BYTES:,}).", body)
    if not body.strip():
        raise unparsable(provider, "the reply has an empty body.", body)
    try:
        data = json.loads(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise unparsable(provider, f"the reply is not UTF-8 (byte {error.start}).", body) from error
    except (ValueError, RecursionError) as error:
        if body.lstrip()[:1] == b"<":
            raise unparsable(
                provider, "the reply is a web page.", body, "Is base_url the API's own address?"
            ) from error
        raise unparsable(provider, f"the reply is not JSON: {error}.", body) from error
    if not isinstance(data, dict):
        raise unparsable(provider, f"the reply is a JSON {type(data).__name__}, not an object.", body)
    return data


def unparsable(provider: str, message: str, body: bytes = b"", remedy: str = "") -> ProviderError:
    """A 200 reply that is not a whole answer."""
    return ProviderError("unparsable", message, provider, remedy=remedy, status=200, body=body)


@contextmanager
def reading(provider: str, body: bytes) -> Iterator[None]:
    """Turns a missing or mistyped field met inside the block into ProviderError("unparsable")."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise unparsable(provider, f"the reply lacks what an answer has ({reason}).", body) from error


def http_error(
    provider: str, status: int, headers: Mapping[str, str], body: bytes, *, model: str = ""
) -> ProviderError:
    """The failure that an HTTP reply other than 200 stands for; its message is the provider's own."""
    text = body[:20_000].decode("utf-8", "replace")
    message = _message_of(text) or f"HTTP {status}"
    kind = _kind_of(status, text)
    remedy = ""
    if kind == "auth":
        remedy = _KEY_REMEDY.get(provider, "Check the key and its rights.")
        if "insufficient_quota" in text or "credit balance" in text:
            remedy = "The account has no credit left: top it up, or raise its limit."
    elif kind == "unknown_model":
        remedy = f"Check the model's name ({model or 'none given'}) and base_url."
    return ProviderError(
        kind,
        f"HTTP {status}: {message}",
        provider,
        _retry_after(headers, text),
        remedy,
        status=status,
        body=body[:MAX_BODY_BYTES],
    )


def _kind_of(status: int, text: str) -> FailureKind:
    if status in (401, 402, 403) or "API_KEY_INVALID" in text or "insufficient_quota" in text:
        return "auth"
    if status == 400 and "credit balance" in text:
        return "auth"
    if status == 404:
        return "unknown_model"
    if status == 408:
        return "timeout"
    if status == 429:
        return "rate_limit"
    if status in (503, 529):
        return "overloaded"
    if status >= 500:
        return "server"
    return "bad_request"


def _message_of(text: str) -> str:
    """The sentence inside an error body: {"error": {"message"}} or {"error": "..."}, else its beginning."""
    try:
        data = json.loads(text)
    except ValueError:
        return " ".join(re.sub(r"<[^>]*>", " ", text).split())[:200]
    if isinstance(data, list) and data:  # Gemini sends [{...}] to a streamed request
        data = data[0]
    error = data.get("error", data) if isinstance(data, dict) else data
    if isinstance(error, dict):
        error = error.get("message", "")
    return str(error)[:500]


def _retry_after(headers: Mapping[str, str], text: str) -> float | None:
    """Seconds to wait: `retry-after-ms`, `Retry-After` (seconds or a date), or Gemini's RetryInfo."""
    lowered = {name.lower(): value for name, value in headers.items()}
    try:
        if "retry-after-ms" in lowered:
            return max(0.0, float(lowered["retry-after-ms"]) / 1000)
        if "retry-after" in lowered:
            return max(0.0, float(lowered["retry-after"]))
    except ValueError:
        try:
            return max(0.0, parsedate_to_datetime(lowered["retry-after"]).timestamp() - time.time())
        except (KeyError, ValueError):
            return None
    delay = re.search(r'"retryDelay"\s*:\s*"(\d+(?:\.\d+)?)s"', text)
    return float(delay[1]) if delay else None


def timed_out(provider: str, timeout_s: float) -> ProviderError:
    """No whole answer within the limit. The provider may have charged for it."""
    return ProviderError(
        "timeout",
        f"no whole answer within {timeout_s:g} s.",
        provider,
        remedy="Raise the provider's time limit (timeout_s), or ask for less.",
    )


def lost_connection(provider: str, url: str, error: BaseException) -> ProviderError:
    """The connection was refused, closed or cut."""
    return ProviderError(
        "connection",
        f"lost the connection to {url} ({type(error).__name__}: {error}).",
        provider,
        remedy="Is the server running, and base_url right?",
    )


def missing_key(provider: str, variable: str) -> ProviderError:
    """No key where one is needed."""
    return ProviderError(
        "auth",
        f"there is no API key ({variable} is not set).",
        provider,
        remedy=f"Set {variable}, or store it: keyring set hafs-tui {variable}",
    )


async def paced(
    pieces: AsyncGenerator[_T, None], timeout_s: float, provider: str
) -> AsyncGenerator[_T, None]:
    """The pieces of a stream, with `timeout_s` as the longest wait for the next one."""
    end = time.monotonic() + MAX_STREAM_S
    async with aclosing(pieces):
        while True:
            try:
                async with asyncio.timeout(min(timeout_s, end - time.monotonic())):
                    piece = await anext(pieces)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                raise timed_out(provider, timeout_s) from error
            yield piece
