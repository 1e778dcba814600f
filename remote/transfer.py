"""Copying files to and from a host, over its agent.

A file is hashed first. If the other side has that content, nothing moves. Otherwise it grows in a part
beside its place, named by its content, so that a broken copy goes on where it stopped and never mixes
with another; it is hashed again there and renamed into place. Writes go in order: a part has no holes.
A file that may be executed may be executed there too; no other rights, times or links are copied.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path, PurePosixPath

from remote.errors import HostError, LinkLost, Refused
from remote.host import Progress, Transfer
from remote.session import Frame, Session

BLOCK = 256 * 1024
WINDOW = 16  # blocks under way
FILES_AT_ONCE = 8
ATTEMPTS = 4
UNFINISHED = re.compile(r"\.[0-9a-f]{16}\.part$")

OpenSession = Callable[[], Awaitable[Session]]


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def put(sessions: OpenSession, local: Path, remote: str, progress: Progress | None) -> Transfer:
    """Copy a file, or every file of a folder, to the host."""
    if not await asyncio.to_thread(local.is_dir):
        size = (await asyncio.to_thread(local.stat)).st_size
        tell = Tally(size, progress)
        return await put_file(sessions, local, remote, tell)
    files = await asyncio.to_thread(files_below, local)
    tell = Tally(sum(size for _, size in files), progress)

    async def one(path: Path) -> tuple[str, Transfer]:
        relative = path.relative_to(local).as_posix()
        return relative, await put_file(sessions, path, f"{remote}/{relative}", tell)

    done = await several([partial(one, path) for path, _ in files])
    session = await sessions()
    await session.ask("copy", "mkdir", path=remote)
    fields, _ = await session.ask("copy", "stat", path=remote)
    return tree_transfer(str(fields["path"]), done)


async def get(sessions: OpenSession, remote: str, local: Path, progress: Progress | None) -> Transfer:
    """Copy a file, or every file of a folder, from the host."""
    local = await asyncio.to_thread(local.absolute)
    session = await sessions()
    fields, _ = await session.ask("copy", "stat", path=remote)
    if not fields["folder"]:
        return await get_file(sessions, remote, local, Tally(fields["size"], progress))
    _, body = await session.ask("copy", "tree", path=remote)
    listed: list[tuple[str, int]] = [(str(name), int(size)) for name, size in json.loads(body)]
    tell = Tally(sum(size for _, size in listed), progress)

    async def one(name: str) -> tuple[str, Transfer]:
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts or "\\" in name:
            raise HostError(session.host, "copy", f"a file name that leads out of its folder: {name!r}")
        return name, await get_file(sessions, f"{remote}/{name}", local / inside, tell)

    await asyncio.to_thread(local.mkdir, parents=True, exist_ok=True)
    done = await several([partial(one, name) for name, _ in listed])
    return tree_transfer(str(local), done)


def files_below(folder: Path) -> list[tuple[Path, int]]:
    """Every file with its size, sorted; parts of copies that are not whole yet are none."""
    found = (path for path in folder.rglob("*") if path.is_file() and not UNFINISHED.search(path.name))
    return sorted((path, path.stat().st_size) for path in found)


class Tally:
    """Adds up what is done over all files of one copy, for the caller's progress."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total = total
        self.done = 0
        self.progress = progress

    def add(self, count: int) -> None:
        self.done += count
        if self.progress is not None:
            self.progress(self.done, self.total)


async def several(
    jobs: list[Callable[[], Awaitable[tuple[str, Transfer]]]],
) -> list[tuple[str, Transfer]]:
    """A few at a time; the first error ends all."""
    gate = asyncio.Semaphore(FILES_AT_ONCE)

    async def one(job: Callable[[], Awaitable[tuple[str, Transfer]]]) -> tuple[str, Transfer]:
        async with gate:
            return await job()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(job)) for job in jobs]
    except* (HostError, OSError) as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def tree_transfer(path: str, done: list[tuple[str, Transfer]]) -> Transfer:
    lines = "".join(f"{transfer.sha256}  {name}\n" for name, transfer in sorted(done))
    size = sum(transfer.size for _, transfer in done)
    moved = sum(transfer.moved for _, transfer in done)
    return Transfer(path, len(done), size, hashlib.sha256(lines.encode()).hexdigest(), moved)


async def put_file(sessions: OpenSession, local: Path, remote: str, tell: Tally) -> Transfer:
    size = (await asyncio.to_thread(local.stat)).st_size
    sha256 = await asyncio.to_thread(sha256_of, local)
    what: dict[str, object] = {"path": remote, "sha256": sha256}
    moved = counted = 0

    async def attempt() -> Transfer:
        nonlocal moved, counted
        session = await sessions()
        offer, _ = await session.ask("copy", "offer", **what, size=size)
        offset = int(offer["offset"])
        tell.add(offset - counted)
        counted = offset
        if not offer["here"]:
            with await asyncio.to_thread(local.open, "rb") as file:
                file.seek(offset)
                under_way: deque[Awaitable[Frame]] = deque()
                try:
                    while block := await asyncio.to_thread(file.read, BLOCK):
                        under_way.append(await session.begin("copy", "write", block, **what, offset=offset))
                        offset += len(block)
                        moved += len(block)
                        if len(under_way) >= WINDOW:
                            await under_way.popleft()
                        tell.add(len(block))
                        counted = offset
                finally:
                    await asyncio.gather(*under_way, return_exceptions=True)
            program = await asyncio.to_thread(os.access, local, os.X_OK)
            await session.ask("copy", "accept", **what, size=size, program=program)
        return Transfer(str(offer["path"]), 1, size, sha256, moved)

    return await attempts(attempt, mendable=("offset", "hash"))


async def get_file(sessions: OpenSession, remote: str, local: Path, tell: Tally) -> Transfer:
    moved = counted = 0

    async def attempt() -> Transfer:
        nonlocal moved, counted
        session = await sessions()
        source, _ = await session.ask("copy", "hash", path=remote)
        size, sha256 = int(source["size"]), str(source["sha256"])
        if await asyncio.to_thread(holds, local, size, sha256):
            tell.add(size - counted)
            return Transfer(str(local), 1, size, sha256, moved)
        await asyncio.to_thread(local.parent.mkdir, parents=True, exist_ok=True)
        part = local.with_name(f"{local.name}.{sha256[:16]}.part")
        with await asyncio.to_thread(part.open, "ab") as file:
            offset = asked = file.tell()
            tell.add(offset - counted)
            counted = offset
            under_way: deque[Awaitable[Frame]] = deque()
            try:
                while offset < size:
                    while asked < size and len(under_way) < WINDOW:
                        read = {"path": remote, "offset": asked, "length": BLOCK}
                        under_way.append(await session.begin("copy", "read", **read))
                        asked += BLOCK
                    _, block = await under_way.popleft()
                    if len(block) < min(BLOCK, size - offset):
                        break  # it became shorter meanwhile: the hash below tells
                    await asyncio.to_thread(file.write, block)
                    offset += len(block)
                    moved += len(block)
                    tell.add(len(block))
                    counted = offset
            finally:
                await asyncio.gather(*under_way, return_exceptions=True)
        if not await asyncio.to_thread(holds, part, size, sha256):
            part.unlink()
            message = f"what arrived of {remote} is not what was sent"
            raise Refused(session.host, "copy", message, "Is it still being written?", "hash")
        if source["program"]:
            await asyncio.to_thread(part.chmod, part.stat().st_mode | 0o100)
        await asyncio.to_thread(os.replace, part, local)
        return Transfer(str(local), 1, size, sha256, moved)

    return await attempts(attempt, mendable=("hash",))


def holds(path: Path, size: int, sha256: str) -> bool:
    """Does this file hold exactly that content?"""
    return path.is_file() and path.stat().st_size == size and sha256_of(path) == sha256


async def attempts(attempt: Callable[[], Awaitable[Transfer]], mendable: tuple[str, ...]) -> Transfer:
    """Again after a broken link, or after another copy of the same file got in between."""
    for left in reversed(range(ATTEMPTS)):
        try:
            return await attempt()
        except LinkLost:
            if not left:
                raise
        except Refused as refusal:
            if not left or refusal.kind not in mendable:
                raise
        await asyncio.sleep(0.5 * (ATTEMPTS - left))
    raise AssertionError("the last attempt returns or raises")
