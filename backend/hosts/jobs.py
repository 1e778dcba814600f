"""Jobs as a screen or a command sees them: list, show, follow, cancel, read the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from backend.hosts.catalog import open_named_host
from backend.hosts.mirror import JobNotFound, job_row, tail, wait_for
from backend.settings import Workspace
from backend.store import jobs as rows
from backend.store.jobs import Job
from remote import Stream

__all__ = ["JobNotFound", "cancel_job", "follow_job", "list_jobs", "read_log", "show_job"]


async def list_jobs(ws: Workspace, limit: int = 200) -> list[Job]:
    """Newest first."""
    return await rows.every(ws.db, limit)


async def show_job(ws: Workspace, job_id: str) -> Job:
    """The row of a job. Raises JobNotFound."""
    return await job_row(ws, job_id)


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
        mirroring = asyncio.create_task(wait_for(ws, job_id), name=f"mirror {job_id}")
        try:
            async for chunk in host.follow(job_id, stream, offset):
                on_output(chunk.data)
            return await mirroring
        finally:
            mirroring.cancel()
            await asyncio.gather(mirroring, return_exceptions=True)


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


async def read_log(ws: Workspace, job_id: str, last_lines: int = 200) -> str:
    """The last lines of a job's log, from its host. Raises JobNotFound, SettingsError, HostError."""
    job = await job_row(ws, job_id)
    async with open_named_host(ws, job.host) as host:
        status = await host.status(job_id)
        text = await tail(host, status.log_path, size=400 * last_lines)
    return "\n".join(text.splitlines()[-last_lines:])
