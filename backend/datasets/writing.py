"""Writes JSONL files a page of rows at a time, off the event loop, and never half a file in sight."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO

from backend.datasets.rows import dump_line


class JsonlFile:
    """An open file of rows: `count` and `sha256` are those of what was written so far."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self.count = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    async def write(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Append the records; they are converted and written in a thread. Raises OSError and ValueError."""
        await asyncio.to_thread(self._write, records)

    def _write(self, records: Iterable[Mapping[str, Any]]) -> None:
        for record in records:
            line = dump_line(record)
            self._digest.update(line)
            self._stream.write(line)
            self.count += 1


@asynccontextmanager
async def jsonl_file(path: Path) -> AsyncIterator[JsonlFile]:
    """A file for a block. It is written beside and renamed into place when the block ends and it is on disk;
    when the block raises, `path` stays as it was. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    stream = beside.open("wb")
    try:
        with stream:
            yield JsonlFile(stream)
            await asyncio.to_thread(_to_disk, stream)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _to_disk(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())
