"""A workspace in a temporary folder, and the app on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot

from backend.store import Database, open_database
from hafs_tui.app import HafsApp

SIZES = pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await open_database(tmp_path / "training" / "hafs.db")
    yield opened
    await opened.close()


@pytest.fixture
def app(tmp_path: Path, database: Database) -> HafsApp:
    return HafsApp(tmp_path, database)


async def until(condition: Callable[[], object], pilot: Pilot[object], seconds: float = 20.0) -> None:
    """Wait until `condition()` holds; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the screen never came to what was expected"
        await pilot.pause()
        await asyncio.sleep(0.01)
