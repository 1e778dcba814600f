"""The real asar and the real core, which a whole module's items share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from backend.execution.pool import Execution, open_execution
from backend.execution.tools import find_tools
from backend.settings.models import Tools


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def execution() -> AsyncIterator[Execution]:
    """Without the tools these tests fail, because what they would show was not seen."""
    tools = find_tools(Tools())
    assert tools.asar.path, f"{tools.asar.reason} (tools/install.sh test brings it)"
    assert tools.core.path, f"{tools.core.reason} (apt-get install libretro-bsnes-mercury-balanced)"
    async with open_execution(tools) as opened:
        yield opened
