"""Readings of the hosts' processors and GPUs, kept in memory for the pane that shows them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from backend.hosts.catalog import list_hosts, open_named_host
from backend.settings import SettingsError, Workspace
from remote import HostError, Reading

_RETRY_S = (2.0, 30.0)
_LOOK_S = 2.0
HOSTS_FILE = "hosts.toml"
"""The name under which `Gauges.problems` says that the list of hosts cannot be read."""


class Gauges:
    """The last readings of each processor or GPU, oldest first. `seconds` is how far back they go.

    `problems` says, by host, why there are none now; `version` grows with every piece of news.
    """

    def __init__(self, seconds: int = 1800) -> None:
        self.version = 0
        self.problems: dict[str, str] = {}
        self._seconds = seconds
        self._rings: dict[tuple[str, int], deque[Reading]] = {}

    def add(self, readings: Sequence[Reading]) -> None:
        """News of one host. A stale reading takes the place of the one that it repeats."""
        for reading in readings:
            ring = self._rings.setdefault((reading.host, reading.index), deque(maxlen=self._seconds))
            if ring and ring[-1].at == reading.at:
                ring.pop()
            ring.append(reading)
            self.problems.pop(reading.host, None)
        self.version += 1

    def fail(self, host: str, problem: str) -> None:
        self.problems[host] = problem
        self.version += 1

    def forget(self, host: str) -> None:
        """A host that was removed shows no more."""
        self._rings = {key: ring for key, ring in self._rings.items() if key[0] != host}
        self.problems.pop(host, None)
        self.version += 1

    def latest(self) -> list[Reading]:
        """The newest reading of each, by host and index."""
        return [self._rings[key][-1] for key in sorted(self._rings)]

    def history(self, host: str, index: int) -> list[Reading]:
        """Oldest first; empty where there are none."""
        return list(self._rings.get((host, index), ()))


async def watch_gauges(
    ws: Workspace, gauges: Gauges, names: Sequence[str] | None = None, interval_s: float = 1.0
) -> None:
    """Fill the gauges from hosts: those named, else all of them, with those that are added or removed while it
    runs. Never returns: the app owns its task."""
    tasks: dict[str, asyncio.Task[None]] = {}
    async with asyncio.TaskGroup() as group:
        while True:
            try:
                wanted = list(names) if names is not None else list(await asyncio.to_thread(list_hosts, ws))
                if HOSTS_FILE in gauges.problems:
                    gauges.forget(HOSTS_FILE)
            except SettingsError as error:  # somebody is just editing the file: those that are known go on
                wanted = list(tasks)
                gauges.fail(HOSTS_FILE, str(error))
            for name in set(wanted) - set(tasks):
                tasks[name] = group.create_task(_watch(ws, gauges, name, interval_s), name=f"gauges {name}")
            for name in set(tasks) - set(wanted):
                tasks.pop(name).cancel()
                gauges.forget(name)
            await asyncio.sleep(_LOOK_S)


async def read_gauges(ws: Workspace, name: str) -> list[Reading]:
    """One list of readings of a host. Raises SettingsError or HostError."""
    async with open_named_host(ws, name) as host:
        readings = host.gpus(0.5)
        try:
            async for now in readings:
                return now
        finally:
            await readings.aclose()  # type: ignore[attr-defined]
    return []


async def _watch(ws: Workspace, gauges: Gauges, name: str, interval_s: float) -> None:
    pause, longest = _RETRY_S
    while True:
        try:
            async with open_named_host(ws, name) as host:
                async for readings in host.gpus(interval_s):
                    gauges.add(readings)
                    pause = _RETRY_S[0]
        except (HostError, SettingsError) as error:
            gauges.fail(name, str(error))
        await asyncio.sleep(pause)
        pause = min(longest, pause * 2)
