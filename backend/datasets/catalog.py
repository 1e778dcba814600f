"""Finds dataset versions by name, and says what is in them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.datasets.errors import DatasetError
from backend.settings import Workspace
from backend.store import datasets
from backend.store.datasets import DatasetVersion

_FILES = ("train.jsonl", "val.jsonl", "test.jsonl", "stats.json", "metadata.json")


@dataclass(frozen=True, slots=True)
class Shown:
    """A version with its stats.json; `missing` names files of its folder that are gone."""

    version: DatasetVersion
    stats: dict[str, Any]
    missing: list[str]


async def versions(ws: Workspace) -> list[DatasetVersion]:
    """Every version, newest first."""
    return await datasets.every(ws.db)


async def find(ws: Workspace, ref: str) -> DatasetVersion:
    """The version that `NAME@VERSION` names, or the newest of `NAME`. Raises DatasetError, which says which
    names there are."""
    name, _, number = ref.partition("@")
    if number and not number.isdecimal():
        raise DatasetError(f"{ref!r} names no dataset: a version is a number, as in {name}@2")
    found = await datasets.find(ws.db, name, int(number) if number else None)
    if found is None:
        raise DatasetError(f"no dataset {ref}; {await _known(ws)}")
    return found


async def show(ws: Workspace, ref: str) -> Shown:
    """A version and what it holds. Raises DatasetError where there is no such version."""
    version = await find(ws, ref)
    return await asyncio.to_thread(_shown, version)


def _shown(version: DatasetVersion) -> Shown:
    folder = Path(version.path)
    missing = [name for name in _FILES if not (folder / name).exists()]
    stats: dict[str, Any] = {}
    if "stats.json" not in missing:
        stats = json.loads((folder / "stats.json").read_text("utf-8"))
    return Shown(version, stats, missing)


async def resolve_folder(ws: Workspace, ref: str) -> Path:
    """The folder (or file) that a `NAME[@VERSION]` or a path names: what training is given.

    A name wins over a path of the same spelling; `./NAME` is always a path. Raises DatasetError.
    """
    name, _, number = ref.partition("@")
    found = None
    if not number or number.isdecimal():
        found = await datasets.find(ws.db, name, int(number) if number else None)
    place = await asyncio.to_thread(_existing, found.path if found else ref)
    if place is not None:
        return place
    if found:
        raise DatasetError(
            f"dataset {found.name}@{found.version}: {found.path} is gone; restore it from a backup, or build it again"
        )
    raise DatasetError(f"{ref!r} is neither a dataset nor a path that exists; {await _known(ws)}")


def _existing(path: str) -> Path | None:
    place = Path(path).expanduser().absolute()
    return place if place.exists() else None


async def _known(ws: Workspace) -> str:
    names = sorted({version.name for version in await datasets.every(ws.db)})
    if not names:
        return "there is none yet: hafs-tui dataset build NAME makes one of approved samples"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"there are: {shown}"
