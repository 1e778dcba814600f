"""Ollama through its SDK: answers for campaigns and chat, and the models of a deployment.

The SDK parses every reply and throws its bytes away, so a hook on its HTTP client keeps them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import ollama

from backend.providers.base import Answer, ChatRequest, FinishReason, RawReply, Usage, well_formed
from backend.providers.wire import (
    MAX_STREAM_S,
    http_error,
    lost_connection,
    paced,
    read_json,
    reading,
    timed_out,
    unparsable,
)

OLLAMA_URL = "http://127.0.0.1:11434"
_CHUNK = 1024 * 1024

_ENDS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}
_replies: ContextVar[list[httpx.Response] | None] = ContextVar("_replies", default=None)


@dataclass(frozen=True, slots=True)
class OllamaModel:
    """A model that an Ollama server has: its name with its tag, its digest and its size on disk in bytes."""

    name: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Progress:
    """One line of a create's or pull's progress; `total` is 0 where there is nothing to count."""

    status: str
    completed: int = 0
    total: int = 0


class Ollama:
    """A client of one Ollama server (its own, or a remote one's through a forwarded port)."""

    name = "ollama"

    def __init__(self, base_url: str = "", timeout_s: float = 120.0) -> None:
        url = base_url or OLLAMA_URL
        self._url = url if "://" in url else f"http://{url}"
        self._timeout_s = timeout_s
        self._client = ollama.AsyncClient(
            self._url,
            follow_redirects=False,
            timeout=None,  # ours bounds the whole call
            limits=httpx.Limits(max_connections=None),
            event_hooks={"response": [_keep]},
        )
        self._blobs = httpx.AsyncClient(
            base_url=self._url, timeout=httpx.Timeout(None)
        )  # the SDK cannot ask for one

    async def send(self, request: ChatRequest) -> RawReply:
        seen: list[httpx.Response] = []
        token = _replies.set(seen)
        try:
            async with self._failures(request.model):
                await self._client.chat(**_body(request), stream=False)
        except (ValueError, TypeError, AttributeError):
            if not seen:
                raise
        finally:
            _replies.reset(token)
        return RawReply(seen[-1].content)  # also what the SDK could not read: `parse` will say why

    def parse(self, raw: RawReply) -> Answer:
        data = read_json(raw, self.name)
        if data.get("error"):
            raise unparsable(self.name, f"the reply is an error: {data['error']}.", raw.body)
        with reading(self.name, raw.body):
            text = well_formed(data["message"].get("content") or "")
            word = data.get("done_reason") or "stop"
            usage = Usage(int(data.get("prompt_eval_count") or 0), int(data.get("eval_count") or 0))
            logprobs = tuple(float(token["logprob"]) for token in data.get("logprobs") or ())
            done = data.get("done") is True
            model = str(data.get("model") or "")
        finish = _ENDS.get(str(word))
        if not done or finish is None:
            raise unparsable(self.name, f"the answer has no good end mark (done_reason {word!r}).", raw.body)
        return Answer(text, finish, usage, raw.body.decode(), model, str(word), logprobs)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[str, None]:
        done = False
        async with aclosing(paced(self._pieces(request), self._timeout_s, self.name)) as pieces:
            async for piece in pieces:
                done = done or piece.done is True
                if piece.message.content:
                    yield well_formed(piece.message.content)
        if not done:
            raise unparsable(self.name, "the stream broke off before the answer's end.")

    async def models(self) -> list[str]:
        return sorted(model.name for model in await self.tags())

    async def aclose(self) -> None:
        await self._blobs.aclose()
        await self._client.close()  # type: ignore[no-untyped-call]

    async def tags(self) -> list[OllamaModel]:
        """The models that the server has. Raises ProviderError, as all the methods below do."""
        async with self._failures(""):
            listed = (await self._client.list()).models
        return [OllamaModel(m.model or "", m.digest or "", int(m.size or 0)) for m in listed]

    async def upload_blob(self, path: Path) -> str:
        """Gives the server a file unless it has it; returns its digest, "sha256:" and 64 hexadecimal digits.
        The server checks the bytes against the digest. Takes as long as it takes, at most MAX_STREAM_S."""
        digest = f"sha256:{await asyncio.to_thread(_sha256, path)}"
        async with self._failures("", limit_s=MAX_STREAM_S):
            there = await self._blobs.head(f"/api/blobs/{digest}")
            if there.status_code == 404:
                made = await self._blobs.post(f"/api/blobs/{digest}", content=_chunks(path))
                if made.status_code not in (200, 201):
                    raise http_error(self.name, made.status_code, made.headers, made.content)
            elif there.status_code != 200:
                raise http_error(self.name, there.status_code, there.headers, b"")
        return digest

    async def create_model(
        self,
        name: str,
        *,
        files: Mapping[str, str] | None = None,
        from_: str | None = None,
        template: str | None = None,
        system: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        messages: Sequence[Mapping[str, str]] = (),
    ) -> AsyncGenerator[Progress, None]:
        """Makes a model from uploaded `files` (file name to digest) or from another model, telling how far
        it is; it is made when the last line says "success". Adapters are not taken: newer servers refuse
        them, so merge first."""
        async with self._failures(name, limit_s=None):
            lines = await self._client.create(
                name,
                from_=from_,
                files=dict(files) if files else None,
                template=template,
                system=system,
                parameters=parameters,
                messages=list(messages) or None,
                stream=True,
            )
            status = ""
            async for line in lines:
                status = line.status or ""
                yield Progress(status, line.completed or 0, line.total or 0)
        if status != "success":
            raise unparsable(self.name, f"the server ended with {status!r} before {name} was made.")

    async def pull(self, name: str) -> AsyncGenerator[Progress, None]:
        """Makes the server fetch a model from its registry, telling how far it is."""
        async with self._failures(name, limit_s=None):
            async for line in await self._client.pull(name, stream=True):
                yield Progress(line.status or "", line.completed or 0, line.total or 0)

    async def show(self, name: str) -> dict[str, Any]:
        """What the server knows of a model: template, parameters, model_info, ..."""
        async with self._failures(name):
            return (await self._client.show(name)).model_dump(mode="json")

    async def loaded(self) -> list[str]:
        """The names of the models that are in the server's memory now."""
        async with self._failures(""):
            return sorted(m.model or "" for m in (await self._client.ps()).models)

    async def delete(self, name: str) -> None:
        """Takes a model from the server."""
        async with self._failures(name):
            await self._client.delete(name)

    async def _pieces(self, request: ChatRequest) -> AsyncGenerator[ollama.ChatResponse, None]:
        async with self._failures(request.model, limit_s=None):
            async for piece in await self._client.chat(**_body(request), stream=True):
                yield piece

    @asynccontextmanager
    async def _failures(self, model: str, *, limit_s: float | None = 0) -> AsyncIterator[None]:
        """Names whatever the SDK raises; bounded by `limit_s` (0: the provider's; None: not here)."""
        limit_s = self._timeout_s if limit_s == 0 else limit_s
        try:
            async with asyncio.timeout(limit_s):
                yield
        except ollama.ResponseError as error:
            status = error.status_code if error.status_code > 0 else 500  # -1: inside a stream
            headers = (_replies.get() or [httpx.Response(status)])[-1].headers  # the SDK drops them
            raise http_error(self.name, status, headers, error.error.encode(), model=model) from error
        except (TimeoutError, httpx.TimeoutException) as error:
            raise timed_out(self.name, limit_s or self._timeout_s) from error
        except (httpx.HTTPError, OSError) as error:
            raise lost_connection(self.name, self._url, error) from error
        except (ValueError, TypeError, AttributeError) as error:
            if _replies.get():
                raise  # `send` keeps what came
            raise unparsable(self.name, f"the SDK could not read the reply: {error}.") from error


async def _keep(response: httpx.Response) -> None:
    """Keeps a reply, with its body, for the `send` that waits for it."""
    seen = _replies.get()
    if seen is not None:
        await response.aread()
        seen.append(response)


def _body(request: ChatRequest) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if request.temperature is not None:
        options["temperature"] = request.temperature
    if request.max_tokens is not None:
        options["num_predict"] = request.max_tokens
    if request.seed is not None:
        options["seed"] = request.seed
    if request.stop:
        options["stop"] = list(request.stop)
    return {
        "model": request.model,
        "messages": [{"role": m.role, "content": well_formed(m.content)} for m in request.messages],
        "options": options,
        "format": request.json_schema,
        "logprobs": request.logprobs or None,
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk
