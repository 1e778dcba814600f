"""`hafs-tui job`: launch, list, show, follow, move, cancel."""

from __future__ import annotations

import codecs
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from hafs_tui.cli.groups import Group
from hafs_tui.cli.support import (
    EXIT_FAILED,
    EXIT_REFUSED,
    Failed,
    Session,
    facts,
    going_on,
    in_workspace,
    table,
)
from hafs_tui.glyphs import sanitize

if TYPE_CHECKING:
    from backend.settings import Workspace
    from backend.store.jobs import Job


@click.group(cls=Group, epilog="Example: hafs-tui job launch box -- nvidia-smi")
def command() -> None:
    """Jobs of any kind on a host."""


def as_json(job: Job) -> dict[str, Any]:
    return {
        "id": job.id, "host": job.host, "kind": job.kind, "state": job.state, "exit_code": job.exit_code,
        "created_at": job.created_at, "started_at": job.started_at, "ended_at": job.ended_at,
        "log_path": job.log_path, "error": job.error, "argv": job.argv, "position": job.position,
    }  # fmt: skip


def end_with(job: Job) -> None:
    """Leave with a failure where the job did not end well."""
    if job.ended and job.state != "done":
        sys.exit(EXIT_FAILED)


@command.command(
    epilog="Example: hafs-tui --json job launch local --detach -- python -c 'print(1)'",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("host")
@click.option("--detach", is_flag=True, help="Return at once; the job goes on by itself.")
@click.option("--now", is_flag=True, help="Start it beside the host's queue, whatever runs there.")
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED)
@in_workspace
async def launch(
    ws: Workspace, session: Session, host: str, detach: bool, now: bool, argv: tuple[str, ...]
) -> None:
    """Start a command on a host as a job that outlives the connection; it waits in the host's queue for a
    slot (one for each GPU, where hosts.toml says nothing else)."""
    from backend.hosts.jobs import follow_job
    from backend.hosts.launching import launch_command

    job = await launch_command(ws, host, argv, now=now)
    if detach:
        session.show(
            as_json(job), f"{job.id} {_standing(job)} on {host}; follow it: hafs-tui job follow {job.id}"
        )
        return
    with going_on(session, f"job {job.id}", job.id):
        ended = await follow_job(ws, job.id, _ignore if session.as_json else _printer())
    _ended(session, ended)


def _standing(job: Job) -> str:
    return f"waits at place {job.position} of the queue" if job.position else "runs"


def _ended(session: Session, job: Job) -> None:
    """The end of a followed job: told on stderr, since stdout holds its output."""
    if session.as_json:
        session.show(as_json(job), "")
    else:
        session.tell(
            f"{job.id}: {job.state}, exit code {job.exit_code}" + (f"\n{job.error}" if job.error else "")
        )
    end_with(job)


def _printer() -> Callable[[bytes], None]:
    """To a file or pipe the job's own bytes; to a terminal, on which they could act, made harmless."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(data: bytes) -> None:
        if sys.stdout.isatty():
            data = sanitize(decoder.decode(data).replace("\r\n", "\n").replace("\r", "\n")).encode()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    return write


def _ignore(data: bytes) -> None:
    """With --json, stdout holds the one document."""


@command.command("list", epilog="Example: hafs-tui job list")
@in_workspace
async def list_(ws: Workspace, session: Session) -> None:
    """Jobs of every host, newest first."""
    from backend.hosts.jobs import list_jobs

    found = await list_jobs(ws)
    rows = [(j.id, j.host, j.kind, j.state, j.position, j.exit_code, (j.error or "")[:60]) for j in found]
    headers = ("id", "host", "kind", "state", "place", "exit", "error")
    session.show([as_json(j) for j in found], table(headers, rows))


@command.command(epilog="Example: hafs-tui job show sft-20261124-083012-ab12")
@click.argument("job_id")
@in_workspace
async def show(ws: Workspace, session: Session, job_id: str) -> None:
    """One job."""
    from backend.hosts.jobs import show_job
    from backend.store.jobs import last_request

    job = await show_job(ws, job_id)
    request = await last_request(ws.db, job_id)
    value = as_json(job) if request is None else {**as_json(job), "move": request}
    asked = "" if request is None else f"to place {request.position}: {request.state} {request.reason or ''}"
    session.show(value, facts({**value, "argv": shlex.join(job.argv), "move": asked}))


@command.command(epilog="Example: hafs-tui job follow sft-20261124-083012-ab12")
@click.argument("job_id")
@click.option("--events", is_flag=True, help="Its event records instead of its output.")
@in_workspace
async def follow(ws: Workspace, session: Session, job_id: str, events: bool) -> None:
    """A job's output from its beginning, each byte once, until it ends."""
    from backend.hosts.jobs import follow_job, show_job
    from remote import NoSuchJob

    try:
        with going_on(session, f"job {job_id}", job_id):
            ended = await follow_job(
                ws,
                job_id,
                _ignore if session.as_json else _printer(),
                stream="events" if events else "stdout",
            )
    except NoSuchJob as error:
        if not (await show_job(ws, job_id)).ended:
            raise
        raise Failed(
            f"the output of job {job_id} is no longer on its host: its folder was removed (hafs-tui prune); "
            f"what is known of it: hafs-tui job show {job_id}"
        ) from error
    _ended(session, ended)


@command.command(epilog="Example: hafs-tui job move sft-20261124-083012-ab12 --to 1")
@click.argument("job_id")
@click.option("--to", "position", type=click.IntRange(1), required=True, help="1 is the next to start.")
@in_workspace
async def move(ws: Workspace, session: Session, job_id: str, position: int) -> None:
    """Give a waiting job another place in its host's queue. Exit code 3 where the host refuses; where it is
    away, it is asked when it is back."""
    from backend.hosts.jobs import move_job

    request = await move_job(ws, job_id, position)
    if request.state == "refused":
        session.show(request, f"{job_id} is not moved: {request.reason}")
        sys.exit(EXIT_REFUSED)
    told = "is moved" if request.state == "taken" else "is moved when its host is back: asked for"
    session.show(request, f"{job_id} {told} to place {position}")


@command.command(epilog="Example: hafs-tui job cancel sft-20261124-083012-ab12")
@click.argument("job_id")
@click.option(
    "--grace", "grace_s", type=float, default=30.0, show_default=True, help="Seconds to end by itself."
)
@in_workspace
async def cancel(ws: Workspace, session: Session, job_id: str, grace_s: float) -> None:
    """Ask a job to end, so that a checkpoint is written; end its whole tree after the grace."""
    from backend.hosts.jobs import cancel_job

    job = await cancel_job(ws, job_id, grace_s)
    session.show(as_json(job), f"{job.id}: {job.state}")
