"""How many requests may be in flight to a provider, and when a failed one is sent again.

The limit is found by trying, as TCP finds its window: it starts low, doubles for each round of successes
until the provider first says "too many", then grows by one a round; a burst of refusals shrinks it once, to
0.8 of what it was, and it rests for a while before it grows again. Failures of the server itself (5xx) say
nothing about how much is in flight and never shrink it.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from backend.providers.base import ProviderError, RetryBudget

_T = TypeVar("_T")
_Sleep = Callable[[float], Awaitable[None]]

SHRINK = 0.8
COOL_DOWN_S = 15.0
AHEAD = 0.5


class _Places:
    """So many places, given by priority, then first come, first served; how many may change at any time."""

    def __init__(self, most: Callable[[], int]) -> None:
        self.taken = 0
        self._most = most
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._came = 0

    async def enter(self, priority: int = 0) -> None:
        if self.taken < self._most() and not self._waiting:
            self.taken += 1
            return
        place = asyncio.get_running_loop().create_future()
        self._came += 1
        heapq.heappush(self._waiting, (-priority, self._came, place))
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # let in and cancelled at once
                self.leave()
            raise

    def leave(self) -> None:
        self.taken -= 1
        self.admit()

    def admit(self) -> None:
        """Lets in those who wait, as far as there is room."""
        while self._waiting and self.taken < self._most():
            _, _, place = heapq.heappop(self._waiting)
            if not place.done():
                self.taken += 1
                place.set_result(None)


class AdaptiveLimit:
    """The slots of one provider. `async with limit.slot():` around each `send`; waiting is first come, first
    served. `most` is never passed. `clock` is in seconds, `sleep` waits on it (both for tests).

    Who has something to do before it sends, which takes a moment, does it in `async with limit.turn() as begun:`
    and calls `begun` when it has its slot: a few have a turn, so that the next one is ready when a slot is
    free, and few wait with theirs.
    """

    def __init__(
        self,
        most: int = 64,
        start: int = 4,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: _Sleep = asyncio.sleep,
    ) -> None:
        self.most = max(1, most)
        self.limit = float(min(max(1, start), self.most))
        self.shrinks = 0
        self._clock = clock
        self._sleep = sleep
        self._slots = _Places(lambda: int(self.limit))
        self._turns = _Places(lambda: 1 + int(self.limit * AHEAD))
        self._successes = 0  # in this round
        self._was_full = False  # in this round: only a limit that was reached may grow
        self._rest_until = float("-inf")  # no growth before
        self._pause_until = float("-inf")  # no request before: the provider said so

    @property
    def in_flight(self) -> int:
        return self._slots.taken

    def forget_pause(self) -> None:
        """Try again now, whatever the provider asked for: a person wants it."""
        self._pause_until = float("-inf")

    @asynccontextmanager
    async def turn(self, priority: int = 0) -> AsyncIterator[Callable[[], None]]:
        await self._turns.enter(priority)
        has_turn = True

        def begun() -> None:
            nonlocal has_turn
            if has_turn:
                has_turn = False
                self._turns.leave()

        try:
            yield begun
        finally:
            begun()

    @asynccontextmanager
    async def slot(self, sleep: _Sleep | None = None, priority: int = 0) -> AsyncIterator[None]:
        """A place in flight; of those who wait, the highest priority has the next. What the block raises tells
        how it went. `sleep` waits out a pause that the provider asked for, in the place of the limit's own."""
        await self._slots.enter(priority)
        self._was_full = self._was_full or self.in_flight >= int(self.limit)
        try:
            await self._wait_out_the_pause(sleep or self._sleep)
            yield
        except ProviderError as error:
            if error.shrinks:
                self._refused(error)
            raise
        else:
            self._grow()
        finally:
            self._slots.leave()
            self._turns.admit()

    async def _wait_out_the_pause(self, sleep: _Sleep) -> None:
        while (wait := self._pause_until - self._clock()) > 0:
            await sleep(wait)

    def _grow(self) -> None:
        self._successes += 1
        if self._successes < int(self.limit):
            return
        if self._was_full and self._clock() >= self._rest_until:
            grown = self.limit + 1 if self.shrinks else self.limit * 2
            self.limit = min(grown, float(self.most))
        self._new_round()

    def _refused(self, error: ProviderError) -> None:
        """A refusal. The first of a burst shrinks the limit; those of the cool-down after it are its echo,
        but may stretch the pause and the cool-down."""
        now = self._clock()
        asked = error.retry_after_s or 0.0
        self._pause_until = max(self._pause_until, now + asked)
        if now >= self._rest_until:
            self.shrinks += 1
            self.limit = max(1.0, self.limit * SHRINK)
            self._rest_until = now + COOL_DOWN_S
            self._new_round()
        self._rest_until = max(self._rest_until, self._pause_until)

    def _new_round(self) -> None:
        self._successes = 0
        self._was_full = self.in_flight >= int(self.limit)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often one request may be sent again, for each kind of failure apart: a provider that is busy must
    not use up what is meant for bad answers. Waits are in seconds."""

    rate: int = 8
    server: int = 3
    output: int = 2
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0

    def allowed(self, budget: RetryBudget) -> int:
        return {"rate": self.rate, "server": self.server, "output": self.output}[budget]

    def wait_s(self, error: ProviderError, repeat: int, chance: float) -> float:
        """How long to wait before the `repeat`-th repeat (from 0) of its kind: twice as long each time, with
        `chance` (0 to 1) spreading it over the upper half, and never less than the provider asked for. A bad
        answer is asked for again at once."""
        asked = error.retry_after_s or 0.0
        if error.budget == "output":
            return asked
        longest = min(self.longest_wait_s, self.first_wait_s * 2.0**repeat)
        return max(asked, longest * (0.5 + chance / 2))


async def with_retries(
    call: Callable[[], Awaitable[_T]],
    policy: RetryPolicy,
    *,
    on_repeat: Callable[[ProviderError, float], None] = lambda _error, _wait_s: None,
    sleep: _Sleep = asyncio.sleep,
    chance: Callable[[], float] = random.random,
) -> _T:
    """Calls until it succeeds or its failure may not be repeated any more, which is then raised.

    Each `call` is one attempt, with a row and a slot of its own; no slot is held while this waits.
    `on_repeat` is told of each failure that will be repeated, and after how many seconds.
    """
    spent: dict[RetryBudget, int] = {}
    while True:
        try:
            return await call()
        except ProviderError as error:
            budget = error.budget
            if budget is None or spent.get(budget, 0) >= policy.allowed(budget):
                raise
            wait_s = policy.wait_s(error, spent.get(budget, 0), chance())
            spent[budget] = spent.get(budget, 0) + 1
            on_repeat(error, wait_s)
        await sleep(wait_s)
