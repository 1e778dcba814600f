"""A conversation with one agent: requests out, answers in, many at once over one channel.

A frame is one line of JSON and then as many raw bytes as its `n` says. The same code speaks over an SSH
channel and over the pipes of a local process. Whatever came before the agent's first line (a banner, what
a shell's start-up files print) is skipped, and shown if the agent never speaks.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from remote.errors import HostError, LinkLost, NoSuchJob, Refused

PROTOCOL = 1
HELLO_TIMEOUT_S = 30.0
NOISE_LIMIT = 256 * 1024

Fields = dict[str, Any]  # the JSON of a frame, on its way to a typed record
Frame = tuple[Fields, bytes]

REMEDIES = {
    "no space": "Free some space there, or choose another root folder for this host.",
    "root": "Choose another root folder for this host, or have that one made writable.",
    "PermissionError": "Check who owns that path on the host.",
    "missing": "Check the path on the host.",
    "windows": "See docs/hosts.md, Windows: what its sshd and policies must allow.",
    "slurm": "Check the host's `slurm` settings (partition, account, time), and Slurm itself with sinfo.",
    "not waiting": "`job show` says what became of it.",
    "timeout": "Allow it more time, or launch it as a job.",
    "hash": "Is the file still being written? Copy it again when it is whole.",
    "offset": "Another copy of the same file is under way: wait for it.",
}


class ByteReader(Protocol):
    async def read(self, n: int = -1, /) -> bytes: ...
    async def readline(self) -> bytes: ...
    async def readexactly(self, n: int, /) -> bytes: ...


class ByteWriter(Protocol):
    def write(self, data: bytes, /) -> None: ...
    async def drain(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Channel:
    """The two ends of an agent that was just started, and how to see its end."""

    reader: ByteReader
    writer: ByteWriter
    stderr: ByteReader
    end: Callable[[], Awaitable[int | None]]  # close it, and give the exit code where there is one


class Session:
    """Made by `open_session`. Belongs to whoever opened it: `aclose` ends its two tasks."""

    def __init__(self, host: str, channel: Channel) -> None:
        self.host = host
        self.root = ""
        self._channel = channel
        self._next = 0
        self._answers: dict[int, asyncio.Future[Frame]] = {}
        self._streams: dict[int, asyncio.Queue[Fields]] = {}
        self._lost: HostError | None = None
        self._stderr = b""
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def alive(self) -> bool:
        return self._lost is None

    async def ask(self, step: str, op: str, body: bytes = b"", /, **arguments: object) -> Frame:
        """The answer to one request. Raises LinkLost, or Refused with the agent's words."""
        return await (await self.begin(step, op, body, **arguments))

    async def begin(self, step: str, op: str, body: bytes = b"", /, **arguments: object) -> Awaitable[Frame]:
        """Send a request now, wait for its answer later: many may be under way."""
        number = self._number(step)
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            await self._send(step, {"id": number, "op": op, **arguments}, body)
        except BaseException:
            self._answers.pop(number, None)
            raise
        return self._result(step, number, answer)

    async def stream(self, step: str, op: str, /, **arguments: object) -> AsyncIterator[Fields]:
        """Answer after answer until the agent ends them. A slow reader gets the newest, not all."""
        number = self._number(step)
        queue: asyncio.Queue[Fields] = asyncio.Queue()
        self._streams[number] = queue
        try:
            await self._send(step, {"id": number, "op": op, **arguments}, b"")
            while True:
                fields = await queue.get()
                while not queue.empty() and "lost" not in fields and "end" not in fields:
                    fields = queue.get_nowait()
                if "lost" in fields:
                    raise self._loss(step)
                if "error" in fields:
                    raise self._refusal(step, fields["error"])
                if "end" in fields:
                    return
                yield fields
        finally:
            del self._streams[number]
            self._stop(number)

    async def aclose(self) -> None:
        """End the agent. What its jobs do goes on."""
        self._lose("the session was closed")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._channel.end()

    def _number(self, step: str) -> int:
        if self._lost is not None:
            raise self._loss(step)
        self._next += 1
        return self._next

    async def _send(self, step: str, fields: Fields, body: bytes) -> None:
        line = json.dumps({**fields, "n": len(body)}).encode() + b"\n"
        try:
            self._channel.writer.write(line + body)
            await self._channel.writer.drain()
        except Exception as error:
            self._lose(str(error) or type(error).__name__)
            raise self._loss(step) from error

    async def _result(self, step: str, number: int, answer: asyncio.Future[Frame]) -> Frame:
        try:
            fields, body = await answer
        except asyncio.CancelledError:
            self._stop(number)
            raise
        finally:
            self._answers.pop(number, None)
        if "lost" in fields:
            raise self._loss(step)
        if "error" in fields:
            raise self._refusal(step, fields["error"])
        return fields, body

    def _stop(self, number: int) -> None:
        """Tell the agent that nobody waits for this answer any more. Its own answer goes unread."""
        if self.alive:
            self._next += 1
            stop = {"id": self._next, "op": "stop", "number": number, "n": 0}
            with suppress(OSError):  # a broken link is noticed by whoever reads
                self._channel.writer.write(json.dumps(stop).encode() + b"\n")

    def _loss(self, step: str) -> LinkLost:
        why = self._lost.message if self._lost else "the link broke"
        return LinkLost(self.host, step, why, "Jobs there go on. Try again when the link is back.")

    def _refusal(self, step: str, error: Fields) -> HostError:
        kind, message = str(error["kind"]), str(error["message"])
        if kind == "no job":
            return NoSuchJob(self.host, step, message, "`job list` shows the jobs of this host.")
        return Refused(self.host, step, message, REMEDIES.get(kind, ""), kind)

    def _lose(self, why: str) -> None:
        """Tell everybody who waits, once."""
        if self._lost is not None:
            return
        self._lost = LinkLost(self.host, "talk to the agent", why)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_result(({"lost": True}, b""))
        for queue in self._streams.values():
            queue.put_nowait({"lost": True})

    async def _receive(self) -> None:
        """Owned by the session: hands each frame to whoever asked."""
        reader = self._channel.reader
        why = "the connection was closed"
        try:
            while line := await reader.readline():
                fields: Fields = json.loads(line)
                body = await reader.readexactly(fields.pop("n"))
                number = fields.pop("id")
                answer = self._answers.get(number)
                if answer is not None and not answer.done():
                    answer.set_result((fields, body))
                elif number in self._streams:
                    self._streams[number].put_nowait(fields)
        except Exception as error:  # of the link, of whatever kind: those who wait are told
            why = str(error) or type(error).__name__
        self._lose(why)

    async def _drain_stderr(self) -> None:
        """Owned by the session: keeps the agent from blocking, and its last words for an error."""
        with suppress(OSError):
            while words := await self._channel.stderr.read(8192):
                self._stderr = (self._stderr + words)[-8192:]

    async def _greet(self, root: str) -> None:
        """Find the agent's first line among whatever a login prints, then start to listen."""
        nonce = secrets.token_hex(16)
        hello = {"id": 0, "op": "hello", "nonce": nonce, "root": root, "n": 0}
        marker = b"HAFS-AGENT " + nonce.encode()
        noise = b""
        self._tasks.append(asyncio.create_task(self._drain_stderr(), name=f"{self.host} stderr"))
        try:
            self._channel.writer.write(json.dumps(hello).encode() + b"\n")
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                await self._channel.writer.drain()
                while (line := await self._channel.reader.readline()).rstrip(b"\r\n") != marker:
                    noise += line
                    if not line or len(noise) > NOISE_LIMIT:
                        break
                found = line.rstrip(b"\r\n") == marker
                answer = await self._channel.reader.readline() if found else b""
        except Exception as error:  # of the link, of whatever kind, or of the time-out
            raise await self._silence(noise, late=isinstance(error, TimeoutError)) from error
        if not answer.endswith(b"\n"):
            raise await self._silence(noise)
        fields: Fields = json.loads(answer)
        if "error" in fields:
            raise self._refusal("start the agent", fields["error"])
        if fields["protocol"] != PROTOCOL:
            raise HostError(
                self.host, "start the agent", "an agent of another version answered", "Try again."
            )
        self.root = fields["root"]
        self._tasks.append(asyncio.create_task(self._receive(), name=f"{self.host} frames"))

    async def _silence(self, noise: bytes, late: bool = False) -> HostError:
        """Why no agent spoke, in the words that the host gave instead."""
        code = await self._channel.end()
        with suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                await asyncio.gather(*self._tasks, return_exceptions=True)
        words = as_text(self._stderr or noise).strip()[-2000:]
        if not late and (code is None or code < 0):
            why = words or "the connection was closed"
            return LinkLost(self.host, "start the agent", why, "Try again when the link is back.")
        message = f"no answer (exit code {code})" if code is not None else "no answer"
        remedy = "Log in by hand and see what the shell prints or waits for."
        if code in (127, 9009) or "not found" in words or "not recognized" in words:
            message, remedy = "there is no such Python", "Give this host's `python` as an absolute path."
        elif "SyntaxError" in words or "from __future__" in words:
            message, remedy = "its Python is too old", "The agent needs Python 3.9 or newer: give its path."
        return HostError(self.host, "start the agent", f"{message}: {words}" if words else message, remedy)


def as_text(words: bytes) -> str:
    """What a login printed: UTF-8, PowerShell's UTF-16, or a console's code page, of which ASCII is sure."""
    if words[:2] == b"\xff\xfe" or words[1::2].count(0) > len(words) // 4:
        return words.decode("utf-16-le", "replace").lstrip("\ufeff")
    try:
        return words.decode("utf-8")
    except UnicodeDecodeError:
        return words.decode("cp437" if b"\r\n" in words else "latin-1")


async def open_session(host: str, channel: Channel, root: str) -> Session:
    """Greet the agent at the other end. On failure the channel is closed and the error says why."""
    session = Session(host, channel)
    try:
        await session._greet(root)
    except BaseException:
        await session.aclose()
        raise
    return session
