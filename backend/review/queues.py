"""Queues: which samples are reviewed, and in which order; how many there are and how long they will take."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from backend.settings import Workspace
from backend.store import samples
from backend.store.clock import now
from backend.store.samples import Filter, SampleState

Order = Literal["newest", "oldest", "random", "uncertain"]
ORDERS: tuple[Order, ...] = get_args(Order)
EVERYTHING = Filter()
_STATES: tuple[SampleState, ...] = get_args(SampleState)


@dataclass(frozen=True, slots=True)
class Progress:
    """`decided` counts the samples that the reviewer decided about since then and that stand so, `left` the
    pending samples of the filter. `seconds_left` is None until there is a rate to tell it by."""

    decided: int
    per_minute: float
    left: int
    seconds_left: float | None


async def ids(
    ws: Workspace,
    filter: Filter = EVERYTHING,
    order: Order = "newest",
    *,
    seed: int = 0,
    threshold: float = 0.5,
) -> list[int]:
    """The ids of the filter's samples in an order.

    "random" depends on the seed and the ids alone, so samples that arrive later move no other out of its
    place relative to the rest. "uncertain" begins with the scores nearest to `threshold` (0 to 1, where the
    score would tip a verdict); samples without a score come last, newest first.
    """
    if order == "uncertain":
        condition, values = samples.where(filter)
        rows = await ws.db.fetch_all(
            f"SELECT id FROM samples WHERE {condition} "  # noqa: S608 - values are bound
            "ORDER BY score IS NULL, abs(score - ?), id DESC",
            (*values, threshold),
        )
        return [row[0] for row in rows]
    found = await samples.ids(ws.db, filter, newest_first=order != "oldest")
    if order == "random":
        return await asyncio.to_thread(_shuffled, found, seed)
    return found


def _shuffled(found: Sequence[int], seed: int) -> list[int]:
    """In the order of a hash of seed and id: the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    numbers = np.asarray(found, dtype=np.uint64)
    key = numbers * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed & 0xFFFFFFFFFFFFFFFF)
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    key ^= key >> np.uint64(31)
    order: list[int] = numbers[np.argsort(key, kind="stable")].tolist()
    return order


async def counts(ws: Workspace, filter: Filter = EVERYTHING) -> dict[SampleState, int]:
    """How many samples of the filter are in each state, those with none as 0; `filter.states` is ignored."""
    found = await samples.count_by_state(ws.db, replace(filter, states=()))
    return {state: found.get(state, 0) for state in _STATES}


async def progress(
    ws: Workspace, filter: Filter = EVERYTHING, *, since: float, reviewer: str | None = None
) -> Progress:
    """How far the reviewer has come since `since` (Unix seconds), and how long the rest takes at that rate."""
    decided = await ws.db.fetch_value(
        "SELECT count(DISTINCT sample_id) FROM decisions JOIN samples ON samples.id = sample_id "
        "WHERE reviewer = ? AND at >= ? AND decided_at >= ?",
        (reviewer or ws.settings.review.reviewer, since, since),
    )
    left = (await counts(ws, filter))["pending"]
    minutes = max(now() - since, 1.0) / 60
    rate = decided / minutes
    return Progress(decided, rate, left, left / rate * 60 if rate else None)
