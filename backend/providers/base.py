"""What a provider is: the request it takes, the raw reply it gives, and how it fails.

Paid work is stored before it is judged, so a call has two halves. `Provider.send` returns the body of the
reply as bytes and looks no further; the caller commits them; `Provider.parse` is pure and can read a stored
body again at any later time without a request. `complete` is both for callers that store nothing (chat).
Nothing here retries: one `send` is one HTTP request, and `limits` decides about the next one.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "filter"]
FailureKind = Literal[
    "rate_limit",  # 429: too many requests or tokens
    "overloaded",  # 503/529: the provider has no room for anyone
    "server",  # other 5xx
    "timeout",  # no whole answer in time: it may have been charged
    "connection",  # refused, closed or cut: it may have been charged
    "auth",  # 401/403 or no key at all
    "unknown_model",  # 404 or its equivalent
    "bad_request",  # other 4xx: this request is wrong, others may be right
    "truncated",  # the token limit cut the answer
    "refused",  # a filter or the model declined
    "empty",  # an answer without text
    "unparsable",  # not the wire format, or without its end mark
]
RetryBudget = Literal["rate", "server", "output"]

_BUDGETS: dict[FailureKind, RetryBudget] = {
    "rate_limit": "rate",
    "overloaded": "rate",
    "server": "server",
    "timeout": "server",
    "connection": "server",
    "truncated": "output",
    "empty": "output",
    "unparsable": "output",
}


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What to ask. None means "the provider's default", and is not sent.

    `temperature` is 0 to 2 (Claude: 0 to 1), `max_tokens` limits the answer, `seed` is ignored by Claude,
    `json_schema` asks for structured output where the provider has it, `logprobs` asks for the
    log-probability (natural) of each answered token where it has that.
    """

    model: str
    messages: tuple[Message, ...]
    temperature: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    json_schema: dict[str, Any] | None = None
    logprobs: bool = False

    @property
    def system(self) -> str:
        """The system messages as one text, for providers that take it apart from the turns."""
        return "\n\n".join(m.content for m in self.messages if m.role == "system")

    @property
    def least_tokens(self) -> int:
        """About what the prompt costs in tokens, at four characters each; at least 1."""
        return 1 + sum(len(m.content) for m in self.messages) // 4

    @property
    def turns(self) -> tuple[Message, ...]:
        """The messages without the system ones."""
        return tuple(m for m in self.messages if m.role != "system")

    def canonical(self) -> str:
        """The request as JSON text that is equal for equal requests (ASCII, keys sorted)."""
        values = {
            "model": self.model,
            "messages": [{"role": m.role, "content": m.content} for m in self.messages],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            "stop": self.stop,
            "json_schema": self.json_schema,
            "logprobs": self.logprobs,
        }
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    def key(self, provider: str) -> str:
        """The content key of this request to this provider: 64 hexadecimal digits."""
        return hashlib.sha256(f"{provider}\n{self.canonical()}".encode()).hexdigest()


def ask(model: str, prompt: str, *, system: str = "", **options: Any) -> ChatRequest:
    """A request of one user turn; `options` are the other fields of `ChatRequest`."""
    head = (Message("system", system),) if system else ()
    return ChatRequest(model, (*head, Message("user", prompt)), **options)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request. `prompt_tokens` is all of the prompt, `cached_tokens` the part of it that was
    read from the provider's cache (0 <= cached <= prompt), `cache_write_tokens` the part that was written
    to it (Claude charges that dearer). `completion_tokens` counts hidden reasoning too: it is charged."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0


@dataclass(frozen=True, slots=True)
class RawReply:
    """The body of a 200 reply as it came, to be committed before anyone judges it. `received_at` is Unix
    time in seconds."""

    body: bytes
    received_at: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply that could be read. It may still be no good: see `problem_of`."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    raw: str
    model: str
    detail: str = ""  # the provider's own word for the end: "SAFETY", "max_tokens", ...
    logprobs: tuple[float, ...] = ()  # of each answered token, where asked for and given


class ProviderError(Exception):
    """A request that gave no usable answer: what went wrong, at whom, and what to do about it.

    `status` is the HTTP status where there was one; `body` the body that came with it (or that could not be
    read). `retry_after_s` is the wait that the provider asked for.
    """

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        provider: str,
        retry_after_s: float | None = None,
        remedy: str = "",
        *,
        status: int | None = None,
        body: bytes = b"",
    ) -> None:
        super().__init__(kind, message, provider)
        self.kind = kind
        self.message = message
        self.provider = provider
        self.retry_after_s = retry_after_s
        self.remedy = remedy
        self.status = status
        self.body = body

    def __str__(self) -> str:
        remedy = f" {self.remedy}" if self.remedy else ""
        return f"{self.provider}: {self.message}{remedy}"

    @property
    def budget(self) -> RetryBudget | None:
        """Which retry budget a repeat is taken from; None: repeating would not help."""
        return _BUDGETS.get(self.kind)

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed if it is sent again."""
        return self.budget is not None

    @property
    def stops_provider(self) -> bool:
        """Whether every other request to this provider and model would fail for the same reason."""
        return self.kind in ("auth", "unknown_model")

    @property
    def shrinks(self) -> bool:
        """Whether it says that too much is in flight."""
        return self.budget == "rate"

    @property
    def maybe_charged(self) -> bool:
        """Whether the provider may have done, and charged, the work although no answer came."""
        return self.kind in ("timeout", "connection", "truncated", "refused", "empty", "unparsable")


class Provider(Protocol):
    """One endpoint. Safe for many concurrent calls in one event loop; close it with `aclose`."""

    @property
    def name(self) -> str:
        """The kind of provider: "openai", "gemini", "anthropic", "ollama" or "embedded"."""
        ...

    async def send(self, request: ChatRequest) -> RawReply:
        """One HTTP request, never repeated. Raises ProviderError when no 200 with a whole body came."""
        ...

    def parse(self, raw: RawReply) -> Answer:
        """Reads a raw reply. Raises ProviderError("unparsable") when it is not a whole answer."""
        ...

    def stream(self, request: ChatRequest) -> AsyncGenerator[str, None]:
        """The answer piece by piece, for chat. Raises ProviderError, also when the end mark is missing.
        Whoever may leave it early reads it inside `contextlib.aclosing`."""
        ...

    async def models(self) -> list[str]:
        """The names of the models that the endpoint serves, sorted. Raises ProviderError."""
        ...

    async def aclose(self) -> None:
        """Gives up its connections."""
        ...


def problem_of(answer: Answer, provider: str) -> ProviderError | None:
    """Why a readable answer is no good (truncated, refused, empty), or None. It was paid for all the same."""
    if answer.finish_reason == "length":
        return ProviderError(
            "truncated",
            f"the answer was cut at the token limit ({answer.usage.completion_tokens} tokens).",
            provider,
            remedy="Raise max_tokens, or ask for less.",
        )
    if answer.finish_reason == "filter":
        return ProviderError("refused", f"the answer was declined ({answer.detail or 'filter'}).", provider)
    if not answer.text.strip():
        return ProviderError("empty", "the answer has no text.", provider)
    return None


async def complete(provider: Provider, request: ChatRequest, *, accept_cut: bool = False) -> Answer:
    """Sends and parses. Raises ProviderError for an answer that is no good; `accept_cut` lets one pass that
    the token limit cut (for evaluation and chat, where a cut answer is an answer)."""
    answer = provider.parse(await provider.send(request))
    problem = problem_of(answer, provider.name)
    if problem is None or (accept_cut and problem.kind == "truncated" and answer.text.strip()):
        return answer
    raise problem


def well_formed(text: str) -> str:
    """The text with lone surrogates replaced by U+FFFD: JSON may carry them, UTF-8 and SQLite cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
