"""A workspace in a temporary folder, and the app on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from backend.settings import Workspace, open_workspace
from hafs_tui.app import HafsApp
from hafs_tui.background import Background

SIZES = pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])


@pytest.fixture
async def ws(tmp_path: Path) -> AsyncIterator[Workspace]:
    async with open_workspace(tmp_path) as opened:
        yield opened


@pytest.fixture
async def background() -> AsyncIterator[Background]:
    async with Background() as owner:
        yield owner


@pytest.fixture
def app(ws: Workspace, background: Background) -> HafsApp:
    return HafsApp(ws, background)


async def until(condition: Callable[[], object], pilot: Pilot[Any], seconds: float = 60.0) -> None:
    """Wait until `condition()` holds; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the screen never came to what was expected"
        await pilot.pause()
        await asyncio.sleep(0.01)
