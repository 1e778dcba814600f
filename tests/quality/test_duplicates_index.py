"""Everything ever accepted is in the index of near duplicates, whichever way it came in."""

from __future__ import annotations

import json
from pathlib import Path

from backend.datasets.importing import import_samples
from backend.quality.duplicates import find_duplicate, index_missing
from backend.review.deciding import approve
from backend.settings import Workspace
from backend.similarity.fingerprint import fingerprint
from backend.store import samples
from backend.store.samples import Filter

LONG = " ".join(f"word{n}" for n in range(60))
NEAR = fingerprint(LONG + "\n" + LONG.replace("word30", "another"))


async def brought_in(ws: Workspace, tmp_path: Path, **more: str) -> int:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"instruction": LONG, "output": LONG, **more}) + "\n")
    await import_samples(ws, file)
    return (await samples.ids(ws.db, Filter()))[0]


async def test_an_imported_sample_is_found_by_a_near_copy(ws: Workspace, tmp_path: Path) -> None:
    sample_id = await brought_in(ws, tmp_path)
    since = await index_missing(ws.db)
    match = await find_duplicate(ws.db, NEAR, 0.7)
    assert match is not None
    assert (match.sample_id, match.exact) == (str(sample_id), False)
    assert await index_missing(ws.db, since) == since


async def test_a_sample_that_a_gate_refused_is_found_once_a_reviewer_lets_it_in(
    ws: Workspace, tmp_path: Path
) -> None:
    sample_id = await brought_in(ws, tmp_path, rejection_reason="low score")
    since = await index_missing(ws.db)
    assert await find_duplicate(ws.db, NEAR, 0.7) is None
    await approve(ws, sample_id)
    await index_missing(ws.db, since)
    match = await find_duplicate(ws.db, NEAR, 0.7)
    assert match is not None
    assert match.sample_id == str(sample_id)
