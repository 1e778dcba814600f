"""The machine we are on as a host: the same agent, as a child process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from remote import nvml
from remote.client import AgentHost
from remote.errors import HostError
from remote.host import HostConfig, Reading
from remote.session import Channel, Session, open_session

AGENT = Path(__file__).with_name("agent.py")
END_TIMEOUT_S = 5.0


class LocalConnector:
    def __init__(self, config: HostConfig) -> None:
        self._config = config

    async def open_session(self) -> Session:
        python = self._config.python or sys.executable
        argv = (python, "-I", "-u", "-X", "utf8", str(AGENT), "serve")
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                limit=1024 * 1024,
                env={name: value for name, value in os.environ.items() if name not in self._config.withheld},
                start_new_session=os.name == "posix",  # a Ctrl-C at our terminal is not for the agent
            )
        except OSError as error:
            remedy = "Give this host's `python` as an absolute path."
            raise HostError(self._config.name, "start the agent", str(error), remedy) from error
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise RuntimeError("pipes were asked for")
        stdin = process.stdin

        async def end() -> int | None:
            """End of input ends the agent; one that does not listen is killed."""
            stdin.close()
            try:
                async with asyncio.timeout(END_TIMEOUT_S):
                    return await process.wait()
            except TimeoutError:
                with suppress(ProcessLookupError):
                    process.kill()
                return await process.wait()

        channel = Channel(process.stdout, stdin, process.stderr, end)
        return await open_session(self._config.name, channel, self._config.root)

    async def forward(self, port: int) -> int:
        return port

    async def aclose(self) -> None:
        """Nothing is held but the sessions, which have their owners."""


class LocalHost(AgentHost):
    """The agent's host, but for the GPUs, which are read here."""

    async def gpus(self, interval_s: float = 1.0) -> AsyncIterator[list[Reading]]:
        """NVML's readings where there is a card, else what the agent reads."""
        if not await asyncio.to_thread(nvml.cards):
            async for readings in super().gpus(interval_s):
                yield readings
            return
        while True:
            yield await asyncio.to_thread(nvml.read, self.name)
            await asyncio.sleep(interval_s)


def local_host(config: HostConfig) -> LocalHost:
    return LocalHost(config, LocalConnector(config))
