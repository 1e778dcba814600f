"""Imports preference rows, the origin's and TRL's plain ones, as pairs that wait for a person's word."""

from __future__ import annotations

from pathlib import Path

from backend.datasets.intake import ImportReport, OnProgress, Plan, import_rows
from backend.settings import Workspace


async def import_pairs(
    ws: Workspace,
    path: Path,
    *,
    batch: str | None = None,
    source: str | None = None,
    on_progress: OnProgress | None = None,
) -> ImportReport:
    """Import a JSONL file of `{prompt, chosen, rejected}` and perhaps `source`, streamed; what is here
    already is counted as known, lines that are no such row are quarantined. `batch` is the file's name where
    none is given. Raises DatasetError where the file cannot be read."""
    plan = Plan(source=source, batch=batch or path.stem, pairs_only=True)
    report, _ = await import_rows(ws, path, plan, on_progress)
    return report
