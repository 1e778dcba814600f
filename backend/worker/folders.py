"""Result folders are written beside their place and moved into it, so a half-written one is never taken."""

from __future__ import annotations

import shutil
from pathlib import Path


def new_folder(target: Path) -> Path:
    """An empty folder beside the target."""
    beside = target.with_name(target.name + ".new")
    if beside.exists():
        shutil.rmtree(beside)
    beside.mkdir(parents=True)
    return beside


def put_in_place(beside: Path, target: Path) -> Path:
    """Moves the folder's files into the target, `config.json` last: without it nothing is a model.

    Not the folder as a whole, because the target may hold this job's events file, which is open.
    """
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(beside.iterdir(), key=lambda path: path.name == "config.json"):
        path.replace(target / path.name)
    beside.rmdir()
    return target
