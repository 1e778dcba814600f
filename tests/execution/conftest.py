"""The real asar and the real core, and children that a whole module's tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from backend.execution.pool import Execution, open_execution
from backend.execution.tools import Tools, find_tools
from backend.settings import models


@pytest.fixture(scope="session")
def tools() -> Tools:
    """What this machine has; without it these tests fail, because what they would show was not seen."""
    found = find_tools(models.Tools())
    assert found.asar.path, f"{found.asar.reason} (tools/install.sh test brings it)"
    assert found.core.path, f"{found.core.reason} (apt-get install libretro-bsnes-mercury-balanced)"
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def execution(tools: Tools) -> AsyncIterator[Execution]:
    async with open_execution(tools, children=1) as opened:
        yield opened
