"""Why samples are not in a dataset: what a person or a policy said, or the gate that turned them away."""

from __future__ import annotations

from collections.abc import Sequence

from backend.datasets.rows import Rejection
from backend.datasets.sample_rows import rejection_in
from backend.settings import Workspace
from backend.store.samples import Sample


async def rejections(ws: Workspace, page: Sequence[Sample]) -> dict[int, Rejection]:
    """The rejection of each sample of a page (at most a few hundred), by id.

    A decision wins over a gate; an imported row that nobody decided about keeps its own words.
    """
    marks = ",".join("?" * len(page))
    ids = tuple(sample.id for sample in page)
    gates = await ws.db.fetch_all(
        f"SELECT sample_id, name, figure, reason FROM gates WHERE passed = 0 AND sample_id IN ({marks})",  # noqa: S608
        ids,
    )
    decided = await ws.db.fetch_all(
        "SELECT sample_id, reason, reviewer FROM decisions WHERE kind = 'reject' "  # noqa: S608
        f"AND sample_id IN ({marks}) ORDER BY id",
        ids,
    )
    why = {
        row["sample_id"]: Rejection(row["name"], {"figure": row["figure"], "reason": row["reason"]})
        for row in gates
    }
    why.update({sample.id: kept for sample in page if (kept := rejection_in(sample.extra))})
    newest = {row["sample_id"]: row for row in decided}
    for sample in page:
        if sample.state == "rejected" and sample.id in newest:
            row = newest[sample.id]
            why[sample.id] = Rejection(row["reason"] or "rejected", {"reviewer": row["reviewer"]})
    return {sample.id: why.get(sample.id, Rejection(sample.state)) for sample in page}
