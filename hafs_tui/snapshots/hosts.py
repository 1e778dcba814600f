"""What the Hosts screen shows: every host of hosts.toml, and the jobs of the selected one.

Readings are no rows: the screen takes them from the app's gauges.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from backend.hosts.catalog import list_hosts
from backend.settings import HostSettings, Workspace
from backend.store.jobs import Job

JOBS = 100


@dataclass(frozen=True, slots=True)
class HostsSnapshot:
    """`jobs` are the newest of the host `selected`; `active` counts the jobs under way of each host."""

    hosts: Mapping[str, HostSettings]
    active: Mapping[str, int]
    selected: str
    jobs: tuple[Job, ...]


async def read(ws: Workspace, selected: str | None) -> HostsSnapshot:
    """Everything that the screen shows; `selected` is a name, None or an unknown one is the first host."""
    hosts = await asyncio.to_thread(list_hosts, ws)
    chosen = selected if selected in hosts else next(iter(hosts))
    found = await ws.db.rows(
        Job, "SELECT * FROM jobs WHERE host = ? ORDER BY created_at DESC LIMIT ?", (chosen, JOBS)
    )
    counted = await ws.db.fetch_all(
        "SELECT host, count(*) FROM jobs WHERE state IN ('queued', 'starting', 'running', 'stopping') GROUP BY host"
    )
    return HostsSnapshot(hosts, {row[0]: row[1] for row in counted}, chosen, tuple(found))
