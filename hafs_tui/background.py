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

    def names(self) -> tuple[str, ...]:
        """The names of everything that is under way."""
        return tuple(self._tasks)

    def start(self, name: str, job: Coroutine[Any, Any, object]) -> bool:
        """Start `job` unless work of this name is under way already (False)."""
        if name in self._tasks:
            job.close()
            return False
        self._tasks[name] = asyncio.create_task(self._run(name, job, None), name=name)
        return True

    async def launch(self, name: str, job: Coroutine[Any, Any, object], *, patience_s: float = 2.0) -> None:
        """Start `job` and watch its first seconds: what it refuses at once is raised here.

        Returns when it has ended well, or still works after `patience_s`; a later failure goes to `told`.
        Raises ValueError while work of this name is under way.
        """
        if name in self._tasks:
            job.close()
            raise ValueError(f"{name} is under way already")
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks[name] = asyncio.create_task(self._run(name, job, first), name=name)
        try:
            await asyncio.wait([first], timeout=patience_s)
            if first.done():
                first.result()
        finally:
            first.cancel()

    async def stop(self, name: str) -> None:
        """Cancel work of this name, if there is any, and wait for its end."""
        task = self._tasks.get(name)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(
        self, name: str, job: Coroutine[Any, Any, object], first: asyncio.Future[None] | None
    ) -> None:
        try:
            await job
        except Exception as error:  # every kind of failure is somebody's news, never this owner's end
            if first is not None and not first.done():
                first.set_exception(error)
            elif self.told is None:
                self._failed.append(error)
            else:
                self.told(name, error)
        else:
            if first is not None and not first.done():
                first.set_result(None)
        finally:
            self._tasks.pop(name, None)
