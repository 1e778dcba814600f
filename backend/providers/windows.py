"""Requests and tokens in any minute: a provider's published limits, kept before it has to say "too many"."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

WINDOW_S = 60.0


@dataclass(slots=True)
class Ticket:
    """One request in the window. `tokens` is what it is expected to use, and then what it used."""

    at: float
    tokens: int


class RateWindow:
    """At most `rpm` requests and `tpm` tokens (prompt and answer) in any 60 seconds; None is no limit. A
    request larger than `tpm` by itself goes when nothing else is in the window. `clock` is in seconds."""

    def __init__(
        self, rpm: int | None = None, tpm: int | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rpm = rpm
        self.tpm = tpm
        self._clock = clock
        self._tickets: deque[Ticket] = deque()
        self._mean = 0.0

    async def admit(
        self, least_tokens: int, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> Ticket:
        """Wait until one more request fits. It is expected to use what requests have used lately, at least
        `least_tokens`; tell what it did with `used`."""
        expected = max(least_tokens, round(self._mean))
        while (wait := self._wait_s(expected)) > 0:
            await sleep(wait)
        ticket = Ticket(self._clock(), expected)
        if self.rpm is not None or self.tpm is not None:
            self._tickets.append(ticket)
        return ticket

    def used(self, ticket: Ticket, tokens: int) -> None:
        ticket.tokens = tokens
        self._mean += (tokens - self._mean) / 8

    def _wait_s(self, expected: int) -> float:
        now = self._clock()
        while self._tickets and self._tickets[0].at <= now - WINDOW_S:
            self._tickets.popleft()
        if not self._tickets:
            return 0.0
        too_many = self.rpm is not None and len(self._tickets) >= self.rpm
        too_much = self.tpm is not None and sum(t.tokens for t in self._tickets) + expected > self.tpm
        return self._tickets[0].at + WINDOW_S - now + 0.001 if too_many or too_much else 0.0
