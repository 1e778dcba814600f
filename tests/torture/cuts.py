"""10 cuts (reset, silent, long) and 5 server kills during a job of 100,000 numbered lines, and a sleep."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from backend.settings import Workspace
from tests.fixtures.broken_links import (
    Break,
    Follower,
    away,
    cut,
    follow_through,
    kill_sessions,
    restart_server,
    swallow,
)
from tests.fixtures.workspace_hosts import Loop
from tests.servers.sshd import Sshd


async def test_100_000_lines_arrive_once_and_in_order(
    ws: Workspace, loop_host: Loop, sshd: Sshd, tmp_path: Path
) -> None:
    def breaks(follower: Follower) -> list[Break]:
        reset, silent, long = (
            partial(cut, loop_host),
            partial(swallow, loop_host),
            partial(away, loop_host, 5.0),
        )
        kill, restart = partial(kill_sessions, sshd), partial(restart_server, sshd)
        sleep = partial(follower.sleep, 20.0)
        return [reset, kill, reset, silent, restart, reset, kill, long, reset, sleep, reset, restart, silent, reset,
                kill, reset]  # fmt: skip

    await follow_through(ws, tmp_path, 100_000, breaks)
