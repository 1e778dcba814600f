"""The owner of work that goes on behind the screens: campaigns of this app, mirrors of jobs, gauges.

Screens come and go; this work ends with the app, and the app does not end before it has: a campaign that is
stopped this way writes that it is paused before the database is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any

Told = Callable[[str, Exception], object]


class Background:
    """Named tasks, at most one for each name, cancelled and awaited when its block ends.

    What a task raises is handed to `told` with its name; without one it is raised when the block ends.
    """

    def __init__(self) -> None:
        self.told: Told | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failed: list[Exception] = []

    async def __aenter__(self) -> Background:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._failed and error is None:
            raise ExceptionGroup("work behind the screens failed", self._failed)

    def runs(self, name: str) -> bool:
        """Whether work of this name is under way."""
        return name in self._tasks

    def start(self, name: str, job: Coroutine[Any, Any, object]) -> bool:
        """Start `job` unless work of this name is under way already (False)."""
        if name in self._tasks:
            job.close()
            return False
        self._tasks[name] = asyncio.create_task(self._run(name, job), name=name)
        return True

    async def _run(self, name: str, job: Coroutine[Any, Any, object]) -> None:
        try:
            await job
        except Exception as error:  # every kind of failure is somebody's news, never this owner's end
            if self.told is None:
                self._failed.append(error)
            else:
                self.told(name, error)
        finally:
            self._tasks.pop(name, None)
