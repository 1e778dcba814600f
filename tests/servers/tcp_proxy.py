"""A TCP proxy on loopback that a test can break: reset its links, or swallow what they carry.

`async with TcpProxy(port) as proxy:` listens on `proxy.port`. `cut()` resets every link now (RST).
`drop()` keeps the links open and delivers nothing any more, as a dead network does, and takes no new
ones; `restore()` lets new links through again. `refuse()` closes new links at once.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Self


class TcpProxy:
    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.links = 0  # how many were made in all
        self.bytes_through = 0
        self.limit: int | None = None  # the next link is reset after it carried so many bytes
        self._dropping = False
        self._refusing = False
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Reset every open link."""
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            if sock is not None and not writer.is_closing():
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        self._writers.clear()

    def drop(self) -> None:
        self._dropping = True

    def refuse(self) -> None:
        self._refusing = True
        self.cut()

    def restore(self) -> None:
        """Links of before a drop stay dead; new ones work."""
        self._dropping = self._refusing = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            if self._refusing:
                writer.transport.abort()
                return
            self.links += 1
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
            self._writers.add(far_writer)
            left, self.limit = [self.limit], None
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far_writer, left))
                group.create_task(self._pump(far_reader, writer, left))
        except (OSError, asyncio.CancelledError):  # cancelled only when the proxy ends
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: list[int | None]
    ) -> None:
        dead = False
        try:
            while data := await reader.read(65536):
                dead = dead or self._dropping  # a link that lost bytes can never work again
                if not dead:
                    self.bytes_through += len(data)
                    if left[0] is not None:
                        left[0] -= len(data)
                        if left[0] < 0:
                            self.cut()
                            return
                    writer.write(data)
                    await writer.drain()
            if not dead:
                writer.close()
        except OSError:
            writer.transport.abort()
