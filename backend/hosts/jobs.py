"""Jobs as a screen or a command sees them: list, show, follow, cancel, read the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from backend.hosts.catalog import open_named_host
from backend.hosts.launching import lease_of, record_start
from backend.hosts.mirror import JobNotFound, Pauses, deliver_request, job_row, tail, wait_for
from backend.settings import SettingsError, Workspace
from backend.store import jobs as rows
from backend.store import leases
from backend.store.jobs import Job, QueueRequest
from remote import Host, HostError, LinkLost, Stream

__all__ = ["JobNotFound", "cancel_job", "follow_job", "list_jobs", "move_job", "read_log", "show_job"]

log = logging.getLogger(__name__)


async def list_jobs(ws: Workspace, limit: int = 200) -> list[Job]:
    """Newest first."""
    return await rows.every(ws.db, limit)


async def show_job(ws: Workspace, job_id: str) -> Job:
    """The row of a job; where nobody mirrors one that has not ended, its host is asked first, and its end is
    brought in. A host that cannot be reached leaves the row as it is (`seen_at` says of when).

    Raises JobNotFound.
    """
    job = await job_row(ws, job_id)
    if job.ended or await leases.holder(ws.db, lease_of(job_id)) is not None:
        return job
    try:
        async with open_named_host(ws, job.host) as host:
            if (await host.status(job_id)).ended:
                return await wait_for(ws, job_id)
    except (HostError, SettingsError) as error:
        log.warning("job %s is shown as it was last known: %s", job_id, error)
    return job


async def follow_job(
    ws: Workspace,
    job_id: str,
    on_output: Callable[[bytes], None],
    *,
    stream: Stream = "stdout",
    offset: int = 0,
) -> Job:
    """Hand on a job's output from a byte on, each byte once, until it has ended; the job's row then.

    The job is mirrored meanwhile where nobody else does. Raises JobNotFound, SettingsError, HostError.
    """
    job = await job_row(ws, job_id)
    async with open_named_host(ws, job.host) as host:
        await _reach(host, job_id)
        mirroring = asyncio.create_task(wait_for(ws, job_id, host=host), name=f"mirror {job_id}")
        try:
            await _hand_on(host, job_id, stream, offset, on_output)
            return await mirroring
        finally:
            mirroring.cancel()
            await asyncio.gather(mirroring, return_exceptions=True)


async def _reach(host: Host, job_id: str) -> None:
    """A few tries: from here on the host is known to be there, and is waited for however long it is away."""
    pauses = Pauses()
    while True:
        try:
            await host.status(job_id)
            return
        except LinkLost as error:
            await pauses.wait(error)


async def _hand_on(
    host: Host, job_id: str, stream: Stream, offset: int, on_output: Callable[[bytes], None]
) -> None:
    pauses = Pauses()
    pauses.reached()
    while True:
        try:
            async for chunk in host.follow(job_id, stream, offset):
                on_output(chunk.data)
                offset = chunk.end
            return
        except LinkLost as error:
            await pauses.wait(error)


async def cancel_job(ws: Workspace, job_id: str, grace_s: float = 30.0) -> Job:
    """Ask a job to stop; its whole tree is ended after `grace_s`. Its mirror tells when it has ended.

    Raises JobNotFound, SettingsError, HostError.
    """
    job = await job_row(ws, job_id)
    if job.ended:
        return job
    async with open_named_host(ws, job.host) as host:
        await host.cancel(job_id, grace_s)
    async with ws.db.transaction() as transaction:
        now = await rows.by_id(transaction, job_id)
        if now is not None and not now.ended:
            await rows.update(transaction, job_id, "stopping")
    return await job_row(ws, job_id)


async def move_job(ws: Workspace, job_id: str, position: int) -> QueueRequest:
    """Ask for another place in the host's queue, 1 for the next to start; what became of the request.

    The host decides. While it is away the request stays `asked`; whoever mirrors the job delivers it.
    Raises JobNotFound, SettingsError, HostError.
    """
    job = await job_row(ws, job_id)
    async with ws.db.transaction() as transaction:
        await rows.ask_for_position(transaction, job_id, position)
    try:
        async with open_named_host(ws, job.host) as host:
            await deliver_request(ws, host, job_id)
            others = [one for one in await host.jobs() if one.position is not None]
    except LinkLost as error:
        log.warning("job %s is moved when %s is back: %s", job_id, job.host, error.message)
        others = []
    async with ws.db.transaction() as transaction:
        for status in others:  # those that made room
            await record_start(transaction, status)
    request = await rows.last_request(ws.db, job_id)
    if request is None:
        raise JobNotFound(f"the request to move job {job_id} is gone")
    return request


async def read_log(ws: Workspace, job_id: str, last_lines: int = 200) -> str:
    """The last lines of a job's log, from its host. Raises JobNotFound, SettingsError, HostError."""
    job = await job_row(ws, job_id)
    async with open_named_host(ws, job.host) as host:
        status = await host.status(job_id)
        text = await tail(host, status.log_path, size=400 * last_lines)
    return "\n".join(text.splitlines()[-last_lines:])
