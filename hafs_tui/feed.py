"""News from the database, by polling: one cheap pragma a few times a second, and a message when it moved.

`PRAGMA data_version` on a connection that only reads changes when any other connection has committed, of
this process or of another. The feed knows no table: whoever is shown reads its own snapshot again, and a
screen that is not shown reads nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from textual.message import Message

PERIOD_S = 0.15


class Changed(Message):
    """Rows have changed since the last look."""

    bubble = False


async def watch(version: Callable[[], Awaitable[int]], changed: Callable[[], object]) -> None:
    """Call `changed` each time `version()` has moved, until cancelled."""
    known = await version()
    while True:
        await asyncio.sleep(PERIOD_S)
        now = await version()
        if now != known:
            known = now
            changed()
