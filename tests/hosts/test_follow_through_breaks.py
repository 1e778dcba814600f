"""The proof of the link in short; `make torture` has the long one."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from backend.settings import Workspace
from tests.fixtures.broken_links import Break, Follower, cut, follow_through, kill_sessions, restart_server
from tests.fixtures.workspace_hosts import Loop
from tests.servers.sshd import Sshd


async def test_job_follow_prints_each_line_once_through_cuts_and_server_kills(
    ws: Workspace, loop_host: Loop, sshd: Sshd, tmp_path: Path
) -> None:
    def breaks(follower: Follower) -> list[Break]:
        reset = partial(cut, loop_host)
        return [
            reset,
            partial(kill_sessions, sshd),
            partial(follower.sleep, 1.0),
            partial(restart_server, sshd),
            reset,
        ]

    await follow_through(ws, tmp_path, 20_000, breaks)
