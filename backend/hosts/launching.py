"""Starts jobs on hosts. The row comes first, so that a crash between here and the host loses no job.

What a worker needs travels before it: the bundle with our code, named by its content, and the job's
specification. A host needs the training libraries and nothing of ours.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from backend.contract.bundle import build_bundle
from backend.contract.job import JobSpec, spec_to_json
from backend.hosts.catalog import open_named_host
from backend.settings import Workspace
from backend.store import Transaction, leases
from backend.store import jobs as rows
from backend.store.jobs import Job
from remote import Host, HostError, JobStatus, Launch, LinkLost

# Waiting threads that spin made steps five times slower on shared cores.
WORKER_ENV = {
    "OMP_WAIT_POLICY": "passive",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


RESUMABLE = ("sft", "dpo", "evaluate")
"""Kinds that save when they are asked to end, and whose next job goes on from there."""

WithRow = Callable[[Transaction, str], Awaitable[None]]


def new_job_id(kind: str) -> str:
    """An id that sorts by kind and time: `sft-20261124-083012-ab12`."""
    return f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


async def launch_command(
    ws: Workspace,
    host_name: str,
    argv: Sequence[str],
    *,
    kind: str = "command",
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    job_id: str | None = None,
    now: bool = False,
) -> Job:
    """Start any command as a job: in its turn, or `now`, beside the host's queue. Launching the same id again
    starts nothing and gives the job's row.

    Raises SettingsError, HostError (the row then says why), LeaseHeldError.
    """
    launch = Launch(job_id or new_job_id(kind), tuple(argv), dict(env or {}), cwd, now)
    async with open_named_host(ws, host_name) as host:
        await host.probe()
        return await _launch(ws, host, kind, launch, "{}", {})


async def launch_worker(
    ws: Workspace,
    host: Host,
    spec: JobSpec,
    *,
    job_id: str | None = None,
    with_row: WithRow | None = None,
) -> Job:
    """Start a worker of ours on an open host: `python -m backend.worker.KIND --spec FILE`.

    `with_row` writes what belongs to the job (its run, its evaluation) in the transaction of the job's row.
    Raises HostError (the row then says why), LeaseHeldError.
    """
    job_id = job_id or new_job_id(spec.kind)
    probe = await host.probe()
    document = spec_to_json(spec)
    with tempfile.TemporaryDirectory() as folder:
        spec_file = Path(folder) / f"{job_id}.json"
        await asyncio.to_thread(spec_file.write_text, document, "utf-8")
        bundle = await asyncio.to_thread(build_bundle, Path(folder))
        spec_path, bundle_path = f"{probe.root}/specs/{job_id}.json", f"{probe.root}/bundles/{bundle.name}"
        env = {**WORKER_ENV, "PYTHONPATH": bundle_path}
        if "hub:" not in document:
            env["HF_HUB_OFFLINE"] = "1"
        launch = Launch(
            job_id, (probe.python, *spec.arguments(spec_path)), env, resumable=spec.kind in RESUMABLE
        )
        parcels = {spec_path: spec_file, bundle_path: bundle}
        return await _launch(ws, host, spec.kind, launch, document, parcels, with_row)


async def _launch(
    ws: Workspace,
    host: Host,
    kind: str,
    launch: Launch,
    spec: str,
    parcels: Mapping[str, Path],
    with_row: WithRow | None = None,
) -> Job:
    """The row, the parcels (path there: file here), the start; the job's lease is held meanwhile.

    Where the link breaks at the start itself the row stays "queued": the job may run, and its mirror finds
    out. Any other failure is written into the row.
    """
    async with leases.hold(ws.db, lease_of(launch.job_id)):
        async with ws.db.transaction() as transaction:
            if await rows.by_id(transaction, launch.job_id) is None:
                await rows.insert(transaction, launch.job_id, host.name, kind, json.dumps(launch.argv), spec)
                if with_row is not None:
                    await with_row(transaction, launch.job_id)
        sent = False
        try:
            for path, file in parcels.items():
                await host.put(file, path)
            sent = True
            status = await host.launch(launch)
        except HostError as error:
            if not (sent and isinstance(error, LinkLost)):
                async with ws.db.transaction() as transaction:
                    await rows.update(
                        transaction, launch.job_id, "failed", ended_at=time.time(), error=str(error)
                    )
            raise
        async with ws.db.transaction() as transaction:
            await record_start(transaction, status)
            row = await rows.by_id(transaction, launch.job_id)
    if row is None:
        raise LookupError(f"the row of job {launch.job_id} is gone")
    return row


async def record_start(transaction: Transaction, status: JobStatus) -> None:
    """What the host says about a job that goes on. An end is for the mirror to tell, after all events."""
    state = "running" if status.ended else status.state
    await rows.update(
        transaction,
        status.job_id,
        state,
        started_at=status.started_at,
        log_path=status.log_path,
        position=status.position,
        error=status.message,
    )


def lease_of(job_id: str) -> str:
    """The lease of whoever launches or mirrors a job."""
    return f"job:{job_id}"
