"""Who may write for a resource ("campaign:NAME", "job:ID"): an owner and its heartbeat.

A lease is free when nobody holds it, when its holder is a process of this machine that no longer
lives, or when the heartbeat is older than `EXPIRY_S`. Whoever can no longer renew its own stops working:
after a sleep of the machine, or on a disk that stays full, somebody else may hold it by then.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache

import psutil

from backend.store.clock import now
from backend.store.connection import Database, Queries, StoreError, Transaction

HEARTBEAT_S = 3.0
EXPIRY_S = 20.0
# Linux counts start times from a boot time that moves as the clock is set: equal to within seconds is equal.
_SAME_START_S = 5.0


class LeaseHeldError(Exception):
    """Another living process works on this resource."""


def this_process() -> str:
    """Names this process: host, pid and start time, so that a reused pid is another owner."""
    return _name_of(os.getpid())


@lru_cache(maxsize=2)
def _name_of(pid: int) -> str:
    return f"{socket.gethostname()}:{pid}:{psutil.Process(pid).create_time():.2f}"


def lives(owner: str) -> bool:
    """Whether the process of that name may still work; one of another machine may."""
    host, pid, started = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return True
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(started)) < _SAME_START_S
    except psutil.NoSuchProcess:
        return False


async def holder(queries: Queries, resource: str) -> str | None:
    """The living owner of the resource, or None."""
    row = await queries.fetch_one("SELECT owner, heartbeat FROM leases WHERE resource = ?", (resource,))
    if row is None or now() - row["heartbeat"] > EXPIRY_S or not lives(row["owner"]):
        return None
    return str(row["owner"])


async def take(transaction: Transaction, resource: str, owner: str) -> None:
    """Take or renew the lease; raises LeaseHeldError when another owner lives."""
    held = await holder(transaction, resource)
    if held not in (None, owner):
        raise LeaseHeldError(
            f"{resource} is being worked on by another process ({held}); watch it, or end that one first"
        )
    await transaction.execute(
        "INSERT INTO leases (resource, owner, heartbeat) VALUES (?, ?, ?) "
        "ON CONFLICT (resource) DO UPDATE SET owner = excluded.owner, heartbeat = excluded.heartbeat",
        (resource, owner, now()),
    )


@asynccontextmanager
async def hold(database: Database, resource: str) -> AsyncIterator[None]:
    """Hold the lease of `resource` for the block, renewing its heartbeat.

    Raises LeaseHeldError when another process, or another task of this one, holds it. A lease that is lost
    while the block runs ends the block: it is cancelled, and LeaseHeldError or StoreError says why.
    """
    owner = this_process()
    async with database.transaction() as transaction:
        if await holder(transaction, resource) is not None:
            raise LeaseHeldError(
                f"{resource} is already being worked on; watch it, or end that process first"
            )
        await take(transaction, resource, owner)
    worker = asyncio.current_task()
    assert worker is not None  # noqa: S101 - a coroutine runs in a task
    lost: list[Exception] = []

    async def renew() -> None:
        try:
            await _renew(database, resource, owner)
        except Exception as error:
            lost.append(error)
            worker.cancel()

    heart = asyncio.create_task(renew(), name=f"lease {resource}")
    try:
        try:
            yield
        finally:
            heart.cancel()
            await asyncio.gather(heart, return_exceptions=True)
            async with database.transaction() as transaction:
                await transaction.execute(
                    "DELETE FROM leases WHERE resource = ? AND owner = ?", (resource, owner)
                )
    except (asyncio.CancelledError, StoreError):
        if lost and worker.uncancel() == 0:
            raise lost[0] from None
        raise


async def _renew(database: Database, resource: str, owner: str) -> None:
    """Keep the lease fresh until cancelled. Raises LeaseHeldError when another took it, StoreError when it
    could not be written for so long that another may."""
    renewed = now()
    while True:
        await asyncio.sleep(HEARTBEAT_S)
        try:
            async with database.transaction() as transaction:
                await take(transaction, resource, owner)
            renewed = now()
        except StoreError:
            if now() - renewed > EXPIRY_S - HEARTBEAT_S:
                raise
