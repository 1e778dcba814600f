"""Brings what a job tells into rows: each event once, whatever the link, the app or the machine does.

The byte offset up to which a job's events are stored is committed together with them, so a mirror that was
killed goes on exactly there. A mirror holds the job's lease: one writes, any number watch the rows.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Callable
from contextlib import AsyncExitStack

from backend.contract import events as contract
from backend.contract.events import Checkpoint, Done, Failed, Metrics, Record, Started
from backend.hosts.catalog import open_named_host
from backend.hosts.launching import lease_of, record_start
from backend.hosts.placing import size_of
from backend.registry.catalog import register_artifact
from backend.settings import SettingsError, Workspace
from backend.store import StoreError, Transaction, leases, runs
from backend.store import jobs as rows
from backend.store.jobs import Job
from backend.store.leases import LeaseHeldError
from remote import Host, HostError, JobStatus, LinkLost, NoSuchJob, Refused

OnEvent = Callable[[Record], None]

LOG_LINES = 50
_LOG_BYTES = 64 * 1024
_LOOK_S = 0.3
_TAIL = """
import os, sys
with open(sys.argv[1], "rb") as file:
    file.seek(max(0, os.path.getsize(sys.argv[1]) - int(sys.argv[2])))
    sys.stdout.buffer.write(file.read())
"""
log = logging.getLogger(__name__)


async def mirror(
    ws: Workspace, job_id: str, on_event: OnEvent | None = None, host: Host | None = None
) -> Job:
    """Follow a job until it has ended and all that it told is in rows; the job's row then.

    `on_event` is called with each event after it is committed. A link that breaks is waited for; a host that
    cannot be reached at the start raises HostError; one that is given is open and has answered before. Raises
    JobNotFound, LeaseHeldError, SettingsError.
    """
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(leases.hold(ws.db, lease_of(job_id)))
        job = await job_row(ws, job_id)
        if job.ended:
            return job
        pauses = Pauses()
        if host is None:
            host = await stack.enter_async_context(open_named_host(ws, job.host))
        else:
            pauses.reached()
        while True:
            try:
                status = await host.status(job_id)
                pauses.reached()
                await _mirror_once(ws, host, status, on_event)
                return await job_row(ws, job_id)
            except NoSuchJob as error:
                await _never_arrived(ws, job_id, error)
                return await job_row(ws, job_id)
            except LinkLost as error:
                await pauses.wait(error)


async def wait_for(
    ws: Workspace, job_id: str, on_event: OnEvent | None = None, host: Host | None = None
) -> Job:
    """The job's row once it has ended: mirrors it, or watches the rows while somebody else does.

    `on_event` is called once with each event that is stored from now on. Raises like `mirror`.
    """
    seen = int(await ws.db.fetch_value("SELECT max(seq) FROM events WHERE job_id = ?", (job_id,)) or 0)

    def tell(record: Record) -> None:
        nonlocal seen
        seen = record.seq
        if on_event is not None:
            on_event(record)

    while True:
        if await leases.holder(ws.db, lease_of(job_id)) is None:
            try:
                return await mirror(ws, job_id, tell, host)
            except LeaseHeldError:
                log.debug("another mirror of job %s was faster", job_id)
        await asyncio.sleep(_LOOK_S)
        for event in await rows.events(ws.db, job_id, after=seen):
            body = {**event.payload, "seq": event.seq, "t": event.at, "event": event.kind}
            tell(contract.decode(json.dumps(body)))


async def mirror_all(ws: Workspace) -> None:
    """Mirror every job that has not ended, those launched later too. Never returns: the app owns its task."""
    busy: set[str] = set()
    async with asyncio.TaskGroup() as group:
        while True:
            for job in await rows.not_ended(ws.db):
                if job.id not in busy and await leases.holder(ws.db, lease_of(job.id)) is None:
                    busy.add(job.id)
                    group.create_task(_keep_mirroring(ws, job.id, busy), name=f"mirror {job.id}")
            await asyncio.sleep(_LOOK_S)


async def _keep_mirroring(ws: Workspace, job_id: str, busy: set[str]) -> None:
    """One job to its end, through hosts that are away for as long as they are."""
    pause, longest = 1.0, 30.0
    try:
        while True:
            try:
                await mirror(ws, job_id)
                return
            except LeaseHeldError:
                return
            except (HostError, SettingsError, StoreError) as error:
                log.warning("job %s is not mirrored now: %s", job_id, error)
            await asyncio.sleep(pause)
            pause = min(longest, pause * 2)
    finally:
        busy.discard(job_id)


async def _mirror_once(ws: Workspace, host: Host, status: JobStatus, on_event: OnEvent | None) -> None:
    """From where the rows are to the job's end. Raises LinkLost; begun again, it goes on where it was."""
    async with ws.db.transaction() as transaction:
        await record_start(transaction, status)
    job = await job_row(ws, status.job_id)
    states = asyncio.create_task(_mirror_state(ws, host, status), name=f"state of {job.id}")
    try:
        await _mirror_events(ws, host, job, on_event)
        await _conclude(ws, host, job, await states)
    finally:
        states.cancel()
        await asyncio.gather(states, return_exceptions=True)


async def _mirror_state(ws: Workspace, host: Host, status: JobStatus) -> JobStatus:
    """Each step on the way, and what was asked of the queue while the link was down; the status at the end."""
    while True:
        await deliver_request(ws, host, status.job_id)
        if status.ended:
            return status
        status = await host.news(status)
        if not status.ended:
            async with ws.db.transaction() as transaction:
                await record_start(transaction, status)


async def deliver_request(ws: Workspace, host: Host, job_id: str) -> None:
    """Ask the host for the place in its queue that somebody wants, and write down what it says."""
    request = await rows.last_request(ws.db, job_id)
    if request is None or request.state != "asked":
        return
    try:
        status = await host.move(job_id, request.position)
    except Refused as refusal:
        async with ws.db.transaction() as transaction:
            await rows.answer_request(transaction, request, "refused", refusal.message)
        return
    async with ws.db.transaction() as transaction:
        await rows.answer_request(transaction, request, "taken", "")
        await record_start(transaction, status)


async def _mirror_events(ws: Workspace, host: Host, job: Job, on_event: OnEvent | None) -> None:
    pending = b""
    offset = job.events_offset
    async for chunk in host.follow(job.id, "events", offset):
        pending += chunk.data
        parsed = contract.parse(pending)
        pending = pending[parsed.consumed :]
        offset += parsed.consumed
        for line in parsed.malformed:
            log.warning("job %s told something that is no event: %r", job.id, line[:200])
        if parsed.consumed:
            async with ws.db.transaction() as transaction:
                await _store(transaction, job.id, offset, parsed.records)
        if on_event is not None:
            for record in parsed.records:
                on_event(record)


async def _store(transaction: Transaction, job_id: str, offset: int, records: tuple[Record, ...]) -> None:
    """Events, figures, progress and checkpoints of a piece of the stream, and the offset behind it."""
    await rows.append_events(transaction, job_id, offset, [_as_row(record) for record in records])
    for record in records:
        event = record.event
        if isinstance(event, Metrics):
            await rows.put_metrics(transaction, job_id, event.step, _figures(event))
            await runs.progress(
                transaction, job_id, event.step, event.total_steps, event.loss, event.eval_loss
            )
        elif isinstance(event, Started):
            await runs.progress(transaction, job_id, event.resumed_step or 0, event.total_steps, None, None)
        elif isinstance(event, Checkpoint):
            await runs.put_checkpoint(transaction, job_id, event.step, event.path, record.at)
        elif isinstance(event, Done) and event.step is not None:
            await runs.progress(transaction, job_id, event.step, None, event.loss, event.eval_loss)


def _as_row(record: Record) -> tuple[int, str, float, str]:
    body = json.loads(contract.encode(record))
    for key in ("seq", "t", "event"):
        del body[key]
    return record.seq, record.event.name, record.at, json.dumps(body, ensure_ascii=False)


def _figures(event: Metrics) -> list[tuple[str, float | None]]:
    """The figures that a metrics event has; None where one is not finite."""
    figures: list[tuple[str, float | None]] = []
    for name in event.__slots__:
        value = getattr(event, name)
        if name not in ("step", "total_steps") and value is not None:
            figures.append((name, float(value) if math.isfinite(value) else None))
    return figures


async def _conclude(ws: Workspace, host: Host, job: Job, status: JobStatus) -> None:
    """The end into rows: state, exit code, why it failed, and the model that it made where it did not."""
    why = "" if status.state == "done" else await _why(ws, host, job, status)
    told = await rows.events(ws.db, job.id, kind=Done.name)
    artifact = str(told[-1].payload["artifact"]) if told and status.state == "done" else None
    size = await size_of(host, await host.probe(), artifact) if artifact else None
    async with ws.db.transaction() as transaction:
        await rows.update(
            transaction,
            job.id,
            status.state,
            exit_code=status.exit_code,
            started_at=status.started_at,
            ended_at=status.ended_at or status.heartbeat_at,
            log_path=status.log_path,
            error=why,
        )
        if artifact:
            await register_artifact(transaction, job, artifact, size)


async def _why(ws: Workspace, host: Host, job: Job, status: JobStatus) -> str:
    """What the host and the worker say about a bad end, then the last lines of its log."""
    told = await rows.events(ws.db, job.id, kind=Failed.name)
    words = [status.message]
    if told:
        words += [f"{told[-1].payload['code']}: {told[-1].payload['message']}", told[-1].payload["remedy"]]
    lines = (await tail(host, status.log_path)).splitlines()[-LOG_LINES:]
    if lines:
        words += ["", f"the last {len(lines)} lines of {status.log_path}:", *lines]
    return "\n".join(words).strip()


async def tail(host: Host, log_path: str, size: int = _LOG_BYTES) -> str:
    """The last `size` bytes of a log as text. Raises HostError."""
    probe = await host.probe()
    read = await host.run((probe.python, "-c", _TAIL, log_path, str(size)))
    return (read.stdout if read.exit_code == 0 else read.stderr).decode("utf-8", "replace")


class Pauses:
    """Growing pauses while a host is away: a few where it was never reached, then as long as it takes."""

    TRIES, FIRST_S, LONGEST_S = 3, 0.5, 15.0

    def __init__(self) -> None:
        self._next = self.FIRST_S
        self._tries_left: int | None = self.TRIES

    def reached(self) -> None:
        self._next, self._tries_left = self.FIRST_S, None

    async def wait(self, error: LinkLost) -> None:
        """Sleep before the next try. Raises the error where there is none left."""
        if self._tries_left is not None:
            self._tries_left -= 1
            if self._tries_left <= 0:
                raise error
        await asyncio.sleep(self._next)
        self._next = min(self.LONGEST_S, self._next * 2)


async def _never_arrived(ws: Workspace, job_id: str, error: NoSuchJob) -> None:
    async with ws.db.transaction() as transaction:
        await rows.update(
            transaction, job_id, "failed", error=f"{error}\nIt never started there. Launch it again."
        )


class JobNotFound(LookupError):
    """No job of this id has a row."""


async def job_row(ws: Workspace, job_id: str) -> Job:
    """The row of a job. Raises JobNotFound."""
    row = await rows.by_id(ws.db, job_id)
    if row is None:
        raise JobNotFound(f"no job {job_id}; hafs-tui job list shows those there are")
    return row
