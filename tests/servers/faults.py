"""A real HTTP server that speaks a provider's wire format, notes every request, and fails as it is told.

`FakeApi` holds what the four API fakes share; each of them adds its routes and its shapes. Use one with
`async with OpenAIServer() as server:`. Nothing in here is random: `reply` makes the text of an answer from
the prompt and `script` says, by the number of the request, what goes wrong with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from aiohttp import web

What = Literal[
    "status",  # an error with `status`
    "hang",  # no answer until the client gives up
    "close",  # the connection is closed before the answer
    "cut",  # the connection is closed in the middle of the body
    "slow",  # a byte every 50 ms
    "html",  # a web page, with `status` (200: as an answer)
    "empty",  # 200 with nothing
    "bad_json",  # 200 with JSON that breaks off
    "list",  # 200 with JSON that is no object
    "not_utf8",  # 200 with a byte that no UTF-8 has
    "huge",  # 200 with 10 MB
    "no_end",  # 200 with an answer that has no end mark
    "refusal",  # 200, declined
    "truncation",  # 200, cut at the token limit
    "no_text",  # 200, ended well, without text
    "surrogate",  # 200 with half a surrogate pair in the text
    "error_inside",  # 200, and an error in the middle of a stream
]


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one request."""

    what: What
    status: int = 200
    retry_after: str | None = None  # the header, as it is sent
    message: str = "fault"


def status(code: int, retry_after: str | None = None, message: str = "fault") -> Fault:
    return Fault("status", code, retry_after, message)


Script = Callable[[int], Fault | None]


def in_order(*faults: Fault | None) -> Script:
    """The faults one after the other, and none after them."""
    return lambda number: faults[number] if number < len(faults) else None


def always(fault: Fault) -> Script:
    return lambda _number: fault


def every(step: int, fault: Fault) -> Script:
    """`fault` for requests 0, `step`, 2 `step`, ..."""
    return lambda number: fault if number % step == 0 else None


@dataclass(slots=True)
class Request:
    """A request as it was received. `number` counts the paid ones (those that ask for an answer) from 0."""

    number: int
    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    at: float
    fault: Fault | None = None
    answered: bool = False


def echo(prompt: str) -> str:
    return f"You said: {prompt}"


@dataclass
class FakeApi:
    """The server. `capacity` is how many paid requests it works on at once before it answers 429."""

    reply: Callable[[str], str] = echo
    script: Script = lambda _number: None
    latency_s: float = 0.0
    capacity: int | None = None
    models: tuple[str, ...] = ("test-model",)
    journal: list[Request] = field(default_factory=list)
    most_in_flight: int = 0
    _in_flight: int = 0
    _runner: web.AppRunner | None = None
    _ending: asyncio.Event = field(default_factory=asyncio.Event)
    _port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def paid(self) -> list[Request]:
        """The requests that asked for an answer: each may be charged."""
        return [request for request in self.journal if request.number >= 0]

    # What each API fake defines.
    def routes(self) -> list[web.RouteDef]:
        raise NotImplementedError

    def prompt(self, body: dict[str, Any]) -> str:
        """The last user turn of a request."""
        raise NotImplementedError

    def answer(self, body: dict[str, Any], text: str, fault: What | None) -> dict[str, Any]:
        """The answer in the wire format; for some faults in another shape."""
        raise NotImplementedError

    def pieces(self, body: dict[str, Any], text: str, fault: What | None) -> list[bytes]:
        """The same as a stream."""
        raise NotImplementedError

    def error(self, fault: Fault) -> dict[str, Any]:
        """The body of an error."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=1 << 30)
        app.add_routes(self.routes())
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ending.set()
        if self._runner is not None:
            await self._runner.cleanup()

    def note(self, request: web.Request, body: dict[str, Any], *, is_paid: bool) -> Request:
        number = len(self.paid) if is_paid else -1
        noted = Request(number, request.method, request.path, dict(request.headers), body, time.monotonic())
        if is_paid:
            noted.fault = self.script(number)
        self.journal.append(noted)
        return noted

    async def ask(self, request: web.Request, body: dict[str, Any], *, stream: bool) -> web.StreamResponse:
        """Answers a paid request, well or badly."""
        noted = self.note(request, body, is_paid=True)
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            if self.capacity is not None and self._in_flight > self.capacity:
                return self._error(status(429, message="too many requests"))
            if self.latency_s:
                await asyncio.sleep(self.latency_s)
            if noted.fault is not None and noted.fault.what in ("status", "hang", "close", "html", "empty"):
                return await self._spoilt(request, noted.fault)
            what = noted.fault.what if noted.fault else None
            text = self.reply(self.prompt(body))
            if stream:
                return await self._stream(request, self.pieces(body, text, what), what)
            response = await self._body(request, self.answer(body, text, what), what)
            noted.answered = noted.fault is None
            return response
        finally:
            self._in_flight -= 1

    async def _spoilt(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        if fault.what == "status":
            return self._error(fault)
        if fault.what == "html":
            page = f"<html><body>Sorry: {fault.message}</body></html>"
            return web.Response(text=page, content_type="text/html", status=fault.status)
        if fault.what == "hang":
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), 30)
        if fault.what in ("hang", "close"):
            _drop(request)
        return web.Response(body=b"")

    async def _body(
        self, request: web.Request, data: dict[str, Any], what: What | None
    ) -> web.StreamResponse:
        body = json.dumps(data).encode()
        if what == "bad_json":
            body = body[: len(body) // 2]
        elif what == "list":
            body = b"[1, 2]"
        elif what == "not_utf8":
            body = body[:-1] + b', "x": "\xff"}'
        elif what == "huge":
            body = body[:-1] + b', "x": "' + b"a" * 10_000_000 + b'"}'
        if what not in ("cut", "slow"):
            return web.Response(body=body, content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.content_length = len(body)
        await response.prepare(request)
        if what == "cut":
            await response.write(body[: len(body) // 2])
            _drop(request)
        else:
            for i in range(len(body)):
                await response.write(body[i : i + 1])
                await asyncio.sleep(0.05)
        return response

    async def _stream(
        self, request: web.Request, pieces: list[bytes], what: What | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": self.stream_type})
        await response.prepare(request)
        for i, piece in enumerate(pieces):
            if what == "cut" and i == len(pieces) // 2:
                _drop(request)
                break
            await response.write(piece)
        return response

    stream_type = "text/event-stream"

    def _error(self, fault: Fault) -> web.Response:
        headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
        return web.json_response(self.error(fault), status=fault.status, headers=headers)


def _drop(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def words(text: str) -> int:
    """Tokens, near enough."""
    return len(text.split())


def sse(data: dict[str, Any], event: str | None = None) -> bytes:
    """A server-sent event."""
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()
