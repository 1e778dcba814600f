"""Imports what others made: a file of rows as samples, a whole dataset as a frozen version."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

from backend.datasets.building import PAGE, check_name, freeze, split_samples
from backend.datasets.errors import DatasetError
from backend.datasets.intake import ImportReport, OnProgress, Plan, import_rows
from backend.datasets.splits import SPLITS, Fractions
from backend.settings import Workspace
from backend.store import samples
from backend.store.datasets import DatasetVersion

_STAMP = re.compile(r"_\d{8}_\d{6}$")


async def import_samples(
    ws: Workspace,
    path: Path,
    *,
    domain: str | None = None,
    source: str | None = None,
    approve: bool = False,
    on_progress: OnProgress | None = None,
) -> ImportReport:
    """Import one JSONL file. `domain` and `source` stand for those that a row does not name.

    Rows that the origin had rejected come in as gated, others as pending, or approved by the policy
    "import" with `approve`; preference rows become pairs. Raises DatasetError where the file cannot be read.
    """
    plan = Plan(domain or "unknown", source, "import" if approve else None)
    report, _ = await import_rows(ws, path, plan, on_progress)
    return report


async def import_dataset(
    ws: Workspace,
    path: Path,
    name: str | None = None,
    *,
    domain: str | None = None,
    seed: int = 42,
    fractions: Fractions | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[DatasetVersion, ImportReport]:
    """Import the samples of a dataset, approved by the policy "import", and freeze them as a version.

    A folder's `train.jsonl`, `val.jsonl` and `test.jsonl` keep their rows, and its `rejected.jsonl` comes
    along; a row that stands in two of them stays in the first alone. A file is split by `seed` and
    `fractions`. `name` is the folder's or file's, without its stamp, where none is given.

    Raises DatasetError where nothing can be read or no row is good.
    """
    chosen = name or _STAMP.sub("", path.name.removesuffix(".jsonl"))
    check_name(chosen)
    files = await asyncio.to_thread(_files, path)
    plan = Plan(domain or "unknown", None, "import")
    report = ImportReport(path)
    found: dict[str, list[int]] = {}
    refused: list[int] = []
    seen: set[int] = set()
    for part, file in files.items():
        one, ids = await import_rows(ws, file, plan, on_progress)
        report += one
        fresh = [i for i in dict.fromkeys(ids) if i not in seen]
        gated = await _gated(ws, fresh)
        found[part] = [i for i in fresh if i not in gated]
        refused += sorted(gated)
        seen.update(fresh)
    if "all" in found:
        splits = await split_samples(ws, found["all"], seed, fractions or Fractions())
    else:
        splits = {split: found.get(split, []) for split in SPLITS}
    if not any(splits.values()):
        first = f"; line {report.problems[0].line}: {report.problems[0].reason}" if report.problems else ""
        raise DatasetError(f"{path}: no row could be imported as a sample{first}")
    origin = {"imported_from": str(path)}
    version = await freeze(ws, chosen, splits, refused, seed=seed, origin=origin)
    return version, report


async def _gated(ws: Workspace, ids: Sequence[int]) -> set[int]:
    """Those that a gate, here or at the origin, turned away."""
    gated: set[int] = set()
    for start in range(0, len(ids), PAGE):
        page = await samples.by_ids(ws.db, ids[start : start + PAGE])
        gated.update(sample.id for sample in page if sample.state == "gated")
    return gated


def _files(path: Path) -> dict[str, Path]:
    """The files to read, by the part of the dataset that each is: "all" for a single file."""
    if not path.is_dir():
        return {"all": path}
    parts = {part: path / f"{part}.jsonl" for part in (*SPLITS, "rejected")}
    files = {part: file for part, file in parts.items() if file.exists()}
    if not files.keys() & set(SPLITS):
        raise DatasetError(f"{path}: no train.jsonl, val.jsonl or test.jsonl in this folder")
    return files
