"""The providers of answers: Gemini, Claude, Ollama, any OpenAI-compatible server, and the embedded model.

`open_provider` imports the SDK that it needs and no other: importing this room costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Literal, get_args

from backend.providers.base import (
    Answer,
    ChatRequest,
    FailureKind,
    Message,
    Provider,
    ProviderError,
    RawReply,
    Usage,
    ask,
    complete,
    problem_of,
)

__all__ = [
    "Answer",
    "ChatRequest",
    "FailureKind",
    "Message",
    "Provider",
    "ProviderConfig",
    "ProviderError",
    "ProviderKind",
    "RawReply",
    "Usage",
    "ask",
    "complete",
    "load_sdk",
    "open_provider",
    "problem_of",
]

ProviderKind = Literal["gemini", "anthropic", "ollama", "openai", "embedded"]


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """Where a provider is. An empty `base_url` is the kind's public or usual address; `api_key` is already
    resolved (see `keys.resolve_key`) and is never shown; `timeout_s` bounds each whole call."""

    kind: ProviderKind
    base_url: str = ""
    api_key: str = field(default="", repr=False)
    timeout_s: float = 120.0


_MODULES: dict[ProviderKind, str] = {
    "gemini": "backend.providers.gemini",
    "anthropic": "backend.providers.claude",
    "ollama": "backend.providers.ollama_client",
    "openai": "backend.providers.openai_compatible",
    "embedded": "backend.providers.openai_compatible",
}


def load_sdk(kind: ProviderKind) -> None:
    """Imports what `open_provider` needs for this kind, which takes 0.2 to 1.4 s the first time. Whoever must
    not keep an event loop waiting calls this in a thread first."""
    import_module(_MODULES[kind])


def open_provider(config: ProviderConfig) -> Provider:
    """The client for `config`; close it with `aclose`. Call it inside the running event loop.

    For "embedded" `base_url` is an `embedded.EmbeddedServer`'s, which the caller owns. Raises ProviderError
    ("auth") for a missing key and ValueError for an unknown kind.
    """
    if config.kind in ("openai", "embedded"):
        from backend.providers.openai_compatible import OpenAICompatible

        return OpenAICompatible(config.base_url, config.api_key, config.timeout_s, name=config.kind)
    if config.kind == "gemini":
        from backend.providers.gemini import Gemini

        return Gemini(config.base_url, config.api_key, config.timeout_s)
    if config.kind == "anthropic":
        from backend.providers.claude import Claude

        return Claude(config.base_url, config.api_key, config.timeout_s)
    if config.kind == "ollama":
        from backend.providers.ollama_client import Ollama

        return Ollama(config.base_url, config.timeout_s)
    raise ValueError(f"unknown provider {config.kind!r}: one of {', '.join(get_args(ProviderKind))}")
