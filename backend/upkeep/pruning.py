"""What lies in a workspace and can be made again, or is left over: shown first, removed when told to."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from backend.settings import Workspace
from backend.store import jobs, runs
from backend.store.clock import now

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Waste:
    """A file or folder that may go: why, and its size."""

    path: Path
    why: str
    size_bytes: int


async def find_waste(ws: Workspace, older_than_days: float = 30.0) -> list[Waste]:
    """What may go, largest first. Samples, datasets, adapters (`final/`), reports and the database never do:
    only unfinished writes, old logs, the local host's folders of jobs that ended, and the checkpoints of runs
    that ended well, each older than `older_than_days`.
    """
    ended = {job.id for job in await jobs.every(ws.db, limit=-1) if job.ended}
    done = {run.name for run in await runs.every(ws.db) if run.state == "done"}
    return await asyncio.to_thread(
        lambda: sorted(_search(ws, ended, done, older_than_days), key=lambda w: -w.size_bytes)
    )


def _search(
    ws: Workspace, ended_jobs: set[str], done_runs: set[str], older_than_days: float
) -> Iterator[Waste]:
    before = now() - older_than_days * DAY_S

    def old(path: Path) -> bool:
        return path.lstat().st_mtime < before

    for path in ws.home.rglob("*.part"):
        if path.is_file() and path.lstat().st_mtime < now() - DAY_S:
            yield Waste(path, "an unfinished write", _size(path))
    for path in _children(ws.logs):
        if path.is_file() and old(path):
            yield Waste(path, "an old log", _size(path))
    for path in _children(ws.host_root / "jobs"):
        if path.name in ended_jobs and old(path):
            yield Waste(path, "the folder of a job that ended; its events are in the database", _size(path))
    for run in _children(ws.host_root / "runs"):
        checkpoints = run / "checkpoints"
        if run.name in done_runs and checkpoints.is_dir() and (run / "final").is_dir() and old(checkpoints):
            yield Waste(checkpoints, "checkpoints of a run that ended; final/ stays", _size(checkpoints))


async def remove_waste(found: list[Waste]) -> int:
    """Remove what was found; the bytes that were freed. Raises OSError at the first that cannot go."""

    def remove() -> int:
        freed = 0
        for waste in found:
            if waste.path.is_dir() and not waste.path.is_symlink():
                shutil.rmtree(waste.path)
            else:
                waste.path.unlink(missing_ok=True)
            freed += waste.size_bytes
        return freed

    return await asyncio.to_thread(remove)


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _size(path: Path) -> int:
    if path.is_file() or path.is_symlink():
        return path.lstat().st_size
    return sum(part.lstat().st_size for part in path.rglob("*") if not part.is_dir())
