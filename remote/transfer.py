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
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

from remote.errors import HostError, LinkLost, Refused
from remote.host import Progress, Transfer
from remote.session import Frame, Session

BLOCK = 1024 * 1024
WINDOW = 8  # blocks under way
SMALL = 64 * 1024  # files up to this size go many in one frame
SMALL_BATCH = 100
FILES_AT_ONCE = 8
ATTEMPTS = 4
UNFINISHED = re.compile(r"\.[0-9a-f]{16}\.part$")

T = TypeVar("T")
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

    small = [path for path, size in files if size <= SMALL]
    batches = [small[first : first + SMALL_BATCH] for first in range(0, len(small), SMALL_BATCH)]
    batched = await several([partial(put_small, sessions, local, batch, remote, tell) for batch in batches])
    done = [each for batch in batched for each in batch]
    done += await several([partial(one, path) for path, size in files if size > SMALL])
    session = await sessions()
    await session.ask("copy", "mkdir", path=remote)
    fields, _ = await session.ask("copy", "stat", path=remote)
    return tree_transfer(str(fields["path"]), done)


async def put_small(
    sessions: OpenSession, local: Path, files: list[Path], remote: str, tell: Tally
) -> list[tuple[str, Transfer]]:
    """A batch of small files: asked for together, and those that are not there sent in one frame."""
    read = await asyncio.to_thread(lambda: [SmallFile.of(local, path) for path in files])

    async def attempt() -> list[tuple[str, Transfer]]:
        session = await sessions()
        listed = [[f"{remote}/{one.name}", len(one.data), one.sha256, one.program] for one in read]
        _, body = await session.ask("copy", "have", json.dumps([one[:3] for one in listed]).encode())
        here = set(json.loads(body))
        sent = [number for number in range(len(read)) if number not in here]
        if sent:
            head = json.dumps([listed[number] for number in sent]).encode()
            data = b"".join(read[number].data for number in sent)
            await session.ask("copy", "place", head + b"\n" + data)
        return [
            (one.name, Transfer(f"{remote}/{one.name}", 1, size, one.sha256, 0 if number in here else size))
            for number, one in enumerate(read)
            for size in (len(one.data),)
        ]

    done = await attempts(attempt, mendable=("offset", "hash"))
    tell.add(sum(len(one.data) for one in read))
    return done


@dataclass(frozen=True, slots=True)
class SmallFile:
    name: str  # relative, with `/`
    data: bytes
    sha256: str
    program: bool

    @classmethod
    def of(cls, folder: Path, path: Path) -> SmallFile:
        data = path.read_bytes()
        name = path.relative_to(folder).as_posix()
        return cls(name, data, hashlib.sha256(data).hexdigest(), os.access(path, os.X_OK))


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
        if not plain_name(name):
            raise HostError(session.host, "copy", f"a file name that leads out of its folder: {name!r}")
        return name, await get_file(sessions, f"{remote}/{name}", local / inside, tell)

    await asyncio.to_thread(local.mkdir, parents=True, exist_ok=True)
    small = [name for name, size in listed if size <= SMALL and plain_name(name)]
    batches = [small[first : first + SMALL_BATCH] for first in range(0, len(small), SMALL_BATCH)]
    batched = await several([partial(get_small, sessions, remote, batch, local, tell) for batch in batches])
    done = [each for batch in batched for each in batch]
    others = [name for name, size in listed if size > SMALL or not plain_name(name)]
    done += await several([partial(one, name) for name in others])
    return tree_transfer(str(local), done)


def plain_name(name: str) -> bool:
    """Does it stay in its folder, whatever system reads it?"""
    inside = PurePosixPath(name)
    return not (inside.is_absolute() or ".." in inside.parts or "\\" in name)


async def get_small(
    sessions: OpenSession, remote: str, names: list[str], local: Path, tell: Tally
) -> list[tuple[str, Transfer]]:
    """A batch of small files: their hashes asked for together, and those that are not here in one frame."""

    async def attempt() -> list[tuple[str, Transfer]]:
        session = await sessions()
        paths = [f"{remote}/{name}" for name in names]
        _, body = await session.ask("copy", "hashes", json.dumps(paths).encode())
        hashes: list[tuple[int, str, bool]] = [tuple(one) for one in json.loads(body)]
        here = await asyncio.to_thread(
            lambda: [
                holds(local / name, size, sha) for name, (size, sha, _) in zip(names, hashes, strict=True)
            ]
        )
        missing = [number for number, held in enumerate(here) if not held]
        asked = json.dumps([paths[number] for number in missing]).encode()
        fields, data = await session.ask("copy", "fetch", asked)
        came, at = [], 0
        for number, size in zip(missing, fields["sizes"], strict=True):
            one, at = data[at : at + size], at + size
            if hashlib.sha256(one).hexdigest() != hashes[number][1]:
                message = f"what arrived of {paths[number]} is not what was sent"
                raise Refused(session.host, "copy", message, "Is it still being written?", "hash")
            came.append((local / names[number], one, hashes[number][2]))
        await asyncio.to_thread(write_small, came)
        return [
            (name, Transfer(str(local / name), 1, size, sha256, 0 if held else size))
            for name, held, (size, sha256, _) in zip(names, here, hashes, strict=True)
        ]

    done = await attempts(attempt, mendable=("hash",))
    tell.add(sum(transfer.size for _, transfer in done))
    return done


def write_small(files: list[tuple[Path, bytes, bool]]) -> None:
    """Each beside its place, then renamed into it."""
    for path, data, program in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{hashlib.sha256(data).hexdigest()[:16]}.part")
        part.write_bytes(data)
        if program:
            part.chmod(part.stat().st_mode | 0o100)
        os.replace(part, path)


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


async def several(jobs: list[Callable[[], Awaitable[T]]]) -> list[T]:
    """A few at a time; the first error ends all."""
    gate = asyncio.Semaphore(FILES_AT_ONCE)

    async def one(job: Callable[[], Awaitable[T]]) -> T:
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


async def attempts(attempt: Callable[[], Awaitable[T]], mendable: tuple[str, ...]) -> T:
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
