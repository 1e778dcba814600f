"""A consistent copy of the database, made while others go on working."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from backend.settings import Workspace


class BackupError(Exception):
    """The copy could not be made; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Backup:
    path: Path
    size_bytes: int


async def backup(ws: Workspace, target: Path, *, overwrite: bool = False) -> Backup:
    """Copy the database to `target`, checked by SQLite's integrity check.

    Raises BackupError when `target` exists, is the database itself or cannot be written, StoreError when the
    copy is not whole.
    """
    if await asyncio.to_thread(target.exists) and await asyncio.to_thread(target.samefile, ws.db.path):
        raise BackupError(f"{target} is the database itself; give the copy another name")
    if await asyncio.to_thread(target.exists) and not overwrite:
        raise BackupError(f"{target} exists already; choose another name, or allow it to be overwritten")
    try:
        await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
        await ws.db.backup(target)
    except (OSError, sqlite3.Error) as error:
        raise BackupError(
            f"{target}: the backup could not be written: {error}; is there space and permission?"
        ) from error
    return Backup(target, (await asyncio.to_thread(target.stat)).st_size)
