"""What the Preferences screen shows: how many pairs wait, the batches, and the rows of the list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backend.preferences.reviewing import counts
from backend.settings import Workspace
from backend.store import datasets, deployments
from backend.store.datasets import DatasetVersion
from backend.store.deployments import Deployment
from backend.store.pairs import Pair, PairState
from hafs_tui.widgets.rows import Cell, Cells, Tone

# A sign of its own for each state, so that colour is not the only one.
STATES: Mapping[PairState, tuple[str, Tone]] = {
    "pending": ("·", ""),
    "decided": ("✓", "good"),
    "tie": ("=", "muted"),
    "bad": ("✗", "bad"),
}
_SHOWN_CHARACTERS = 160


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch: its candidates, its pairs, how many of them wait, and their mean margin (None: no scorer)."""

    name: str
    candidates: int
    pairs: int
    pending: int
    margin: float | None


@dataclass(frozen=True, slots=True)
class PreferencesSnapshot:
    """`newest_id` says whether pairs came in since the list was read."""

    counts: Mapping[PairState, int]
    batches: tuple[Batch, ...]
    newest_id: int
    datasets: tuple[DatasetVersion, ...]
    deployments: tuple[Deployment, ...]


async def read(ws: Workspace) -> PreferencesSnapshot:
    """Everything that the screen shows besides its list."""
    candidates = {
        str(row[0]): int(row[1])
        for row in await ws.db.fetch_all("SELECT batch, count(*) FROM candidates GROUP BY batch")
    }
    pairs = {
        str(row[0]): (int(row[1]), int(row[2]), row[3])
        for row in await ws.db.fetch_all(
            "SELECT batch, count(*), sum(state = 'pending'), avg(margin) FROM pairs GROUP BY batch"
        )
    }
    newest = await ws.db.fetch_value("SELECT coalesce(max(id), 0) FROM pairs")
    return PreferencesSnapshot(
        counts=await counts(ws),
        batches=tuple(
            Batch(name, candidates.get(name, 0), *pairs.get(name, (0, 0, None)))
            for name in sorted({*candidates, *pairs})
        ),
        newest_id=int(newest),
        datasets=tuple(await datasets.every(ws.db)),
        deployments=tuple(await deployments.every(ws.db)),
    )


async def rows(ws: Workspace, ids: Sequence[int]) -> dict[int, Cells]:
    """The list's cells for some pairs. They do not tell which answer the scorer preferred."""
    marks = ",".join("?" * len(ids))
    found = await ws.db.rows(Pair, f"SELECT * FROM pairs WHERE id IN ({marks})", tuple(ids))  # noqa: S608
    return {
        pair.id: (
            Cell(*STATES[pair.state]),
            Cell("-" if pair.margin is None else f"{pair.margin:.2f}", "muted"),
            Cell(pair.scorer, "accent"),
            Cell(pair.batch, "muted"),
            Cell(pair.prompt[:_SHOWN_CHARACTERS]),
        )
        for pair in found
    }
