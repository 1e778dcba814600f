"""What the Review screen shows: how many samples wait, how the person gets on, and the rows of the list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backend.review import queues
from backend.review.queues import Progress
from backend.settings import Workspace
from backend.store import samples
from backend.store.samples import Filter, Sample, SampleState
from hafs_tui.widgets.rows import Cell, Cells, Tone

# A sign of its own for each state, so that colour is not the only one.
STATES: Mapping[SampleState, tuple[str, Tone]] = {
    "pending": ("·", ""),
    "approved": ("✓", "good"),
    "rejected": ("✗", "bad"),
    "flagged": ("⚑", "warning"),
    "gated": ("⊘", "muted"),
}
_SHOWN_CHARACTERS = 160


@dataclass(frozen=True, slots=True)
class ReviewSnapshot:
    """Counts of the filter in force, and the reviewer's progress since the screen was opened."""

    counts: Mapping[SampleState, int]
    progress: Progress
    newest_id: int


async def read(ws: Workspace, filters: Filter, since: float) -> ReviewSnapshot:
    """Counts and progress for `filters`; `since` is when the person began (Unix seconds)."""
    newest = await ws.db.fetch_value("SELECT coalesce(max(id), 0) FROM samples")
    counts = await queues.counts(ws, filters)
    progress = await queues.progress(ws, filters, since=since, left=counts["pending"])
    return ReviewSnapshot(counts, progress, int(newest))


async def scored(ws: Workspace) -> bool:
    """Whether any sample has a score at all."""
    return bool(await ws.db.fetch_value("SELECT EXISTS (SELECT 1 FROM samples WHERE score IS NOT NULL)"))


async def rows(ws: Workspace, ids: Sequence[int], *, scored: bool) -> dict[int, Cells]:
    """The list's cells for some samples: state, score (where asked for), domain and the beginning of the
    instruction."""
    return {sample.id: _cells(sample, scored) for sample in await samples.by_ids(ws.db, ids)}


def _cells(sample: Sample, scored: bool) -> Cells:
    score = (Cell("" if sample.score is None else f"{sample.score:.2f}", "muted"),) if scored else ()
    instruction = Cell(sample.instruction[:_SHOWN_CHARACTERS])
    return (Cell(*STATES[sample.state]), *score, Cell(sample.domain, "accent"), instruction)
