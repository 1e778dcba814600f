"""Queues: which samples are reviewed, and in which order; how many there are and how long they will take."""

from __future__ import annotations

import asyncio
from array import array
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
) -> array[int]:
    """The ids of the filter's samples in an order.

    "random" depends on the seed and the ids alone, so samples that arrive later move no other out of its
    place relative to the rest. "uncertain" begins with the scores nearest to `threshold` (0 to 1, where the
    score would tip a verdict); samples without a score come last, newest first.
    """
    if order == "uncertain":
        condition, values = samples.where(filter)
        return await ws.db.numbers(
            f"SELECT id FROM samples WHERE {condition} "  # noqa: S608 - values are bound
            "ORDER BY score IS NULL, abs(score - ?), id DESC",
            (*values, threshold),
        )
    found = await ws.db.numbers(*samples.ids_query(filter, newest_first=order != "oldest"))
    if order == "random":
        return await asyncio.to_thread(_shuffled, found, seed)
    return found


async def first(
    ws: Workspace, filter: Filter, order: Order = "newest", *, threshold: float = 0.5, limit: int
) -> array[int]:
    """The beginning of what `ids` gives, without finding the rest; empty where there is no quicker way."""
    if order in ("newest", "oldest"):
        return array("q", await samples.ids(ws.db, filter, newest_first=order == "newest", limit=limit))
    if order == "uncertain":
        return await _nearest(ws, filter, threshold, limit)
    return array("q")


async def _nearest(ws: Workspace, filter: Filter, threshold: float, limit: int) -> array[int]:
    """From the index of scores, outwards on both sides of the threshold."""
    condition, values = samples.where(filter)
    found: list[tuple[float, int]] = []
    for side, direction in ((">=", "ASC"), ("<", "DESC")):
        rows = await ws.db.fetch_all(
            "SELECT score, id FROM samples INDEXED BY samples_by_score "  # noqa: S608 - values are bound
            f"WHERE {condition} AND score {side} ? ORDER BY score {direction}, id DESC LIMIT ?",
            (*values, threshold, limit),
        )
        found += [(abs(row[0] - threshold), -row[1]) for row in rows]
    return array("q", [-negative for _, negative in sorted(found)[:limit]])


def _shuffled(found: array[int], seed: int) -> array[int]:
    """In the order of a hash of seed and id: the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    numbers = np.frombuffer(found, dtype=np.int64).astype(np.uint64)
    key = numbers * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed & 0xFFFFFFFFFFFFFFFF)
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    key ^= key >> np.uint64(31)
    return array("q", numbers[np.argsort(key, kind="stable")].astype(np.int64).tobytes())


async def counts(ws: Workspace, filter: Filter = EVERYTHING) -> dict[SampleState, int]:
    """How many samples of the filter are in each state, those with none as 0; `filter.states` is ignored."""
    condition, values = samples.where(replace(filter, states=()))
    rows = await ws.db.fetch_long(
        f"SELECT state, count(*) FROM samples WHERE {condition} GROUP BY state",  # noqa: S608 - values are bound
        values,
    )
    found: dict[str, int] = dict(rows)
    return {state: found.get(state, 0) for state in _STATES}


async def progress(
    ws: Workspace,
    filter: Filter = EVERYTHING,
    *,
    since: float,
    reviewer: str | None = None,
    left: int | None = None,
) -> Progress:
    """How far the reviewer has come since `since` (Unix seconds), and how long the rest takes at that rate.

    `left` is the filter's pending samples, where the caller has counted them.
    """
    ((decided,),) = await ws.db.fetch_long(
        "SELECT count(DISTINCT sample_id) FROM decisions JOIN samples ON samples.id = sample_id "
        "WHERE reviewer = ? AND at >= ? AND decided_at >= ?",
        (reviewer or ws.settings.review.reviewer, since, since),
    )
    left = (await counts(ws, filter))["pending"] if left is None else left
    minutes = max(now() - since, 1.0) / 60
    rate = decided / minutes
    return Progress(decided, rate, left, left / rate * 60 if rate else None)
