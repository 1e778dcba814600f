"""`hafs-tui host`: add, list, remove, probe, bootstrap, models, gpus, put, get, shell."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hafs_tui.cli.groups import Group
from hafs_tui.cli.support import EXIT_FAILED, Session, copy_teller, in_workspace, many, size, table
from hafs_tui.glyphs import sanitize

if TYPE_CHECKING:
    from backend.hosts.catalog import HostReport
    from backend.settings import Workspace
    from remote import Reading


@click.group(
    cls=Group, epilog="Example: hafs-tui host add medical-mechanica --address 192.168.1.20 --user me"
)
def command() -> None:
    """Machines that train and serve."""


@command.command(
    epilog="Example: hafs-tui host add box --address 192.168.1.20 --user me --root D:/hafs_training "
    "--python D:/pytorch_env/Scripts/python.exe --accept-new"
)
@click.argument("name")
@click.option("--address", required=True, help="Name or address, or an alias of ~/.ssh/config.")
@click.option("--port", type=click.IntRange(1, 65535), help="Else ~/.ssh/config's, or 22.")
@click.option("--user", help="Else ~/.ssh/config's, or yours.")
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    help="A private key's file; else the agent's and the usual ones.",
)
@click.option("--root", help="The folder there under which everything of ours lies.")
@click.option("--python", help="The interpreter there that has the training libraries.")
@click.option(
    "--scheduler", type=click.Choice(["none", "slurm"]), default="none", help="Who places the jobs."
)
@click.option("--partition", default="", help="Slurm's.")
@click.option("--account", default="", help="Slurm's.")
@click.option("--gpus", type=click.IntRange(0, 64), default=0, help="Of each Slurm job.")
@click.option("--time", default="", help="Limit of each Slurm job, as sbatch has it: 4:00:00.")
@click.option("--slots", type=click.IntRange(1, 64), help="Jobs at once; else one for each GPU.")
@click.option(
    "--accept-new", is_flag=True, help="Trust the host's key if it was never seen; a changed one never."
)
@in_workspace
async def add(
    ws: Workspace,
    session: Session,
    /,
    name: str,
    accept_new: bool,
    partition: str,
    account: str,
    gpus: int,
    time: str,
    **given: Any,
) -> None:
    """Write a host into hosts.toml and look at it."""
    from backend.hosts.catalog import add_host, probe_host
    from backend.settings import HostSettings
    from backend.settings.models import SlurmSettings

    given["slurm"] = SlurmSettings(partition=partition, account=account, gpus=gpus, time=time)
    await asyncio.to_thread(add_host, ws, name, HostSettings(kind="ssh", **given))
    report = await probe_host(ws, name, accept_new=accept_new)
    session.show(report_json(name, report), describe(name, report))


@command.command("list", epilog="Example: hafs-tui host list")
@in_workspace
async def list_(ws: Workspace, session: Session) -> None:
    """Every host of hosts.toml, and this machine."""
    from backend.hosts.catalog import list_hosts

    hosts = await asyncio.to_thread(list_hosts, ws)
    rows = [(n, h.kind, h.address, h.port, h.user, h.root, h.python) for n, h in hosts.items()]
    value = [{"name": n, **h.model_dump(mode="json")} for n, h in hosts.items()]
    session.show(value, table(("name", "kind", "address", "port", "user", "root", "python"), rows))


@command.command(epilog="Example: hafs-tui host remove box")
@click.argument("name")
@in_workspace
async def remove(ws: Workspace, session: Session, name: str) -> None:
    """Take a host out of hosts.toml; what lies on it stays."""
    from backend.hosts.catalog import host_settings, remove_host

    host_settings(ws, name)  # an unknown name is told with those there are
    await asyncio.to_thread(remove_host, ws, name)
    session.show(
        {"name": name, "removed": True}, f"host {name} is removed from hosts.toml; what lies on it stays"
    )


@command.command(epilog="Example: hafs-tui host probe box --accept-new")
@click.argument("name")
@click.option(
    "--accept-new", is_flag=True, help="Trust the host's key if it was never seen; a changed one never."
)
@in_workspace
async def probe(ws: Workspace, session: Session, name: str, accept_new: bool) -> None:
    """Say what a host is and has: system, Python, libraries, GPUs, disk, latency."""
    from backend.hosts.catalog import probe_host

    report = await probe_host(ws, name, accept_new=accept_new)
    session.show(report_json(name, report), describe(name, report))


def report_json(name: str, report: HostReport) -> dict[str, Any]:
    return {
        "host": name,
        "probe": report.probe,
        "libraries": report.libraries,
        "gpus": report.gpus,
        "missing": report.missing,
        "remedy": report.remedy,
    }


def describe(name: str, report: HostReport) -> str:
    """A host for people: what it is, what it has, what is missing."""
    from backend.hosts.catalog import gpu_lines

    p = report.probe
    lines = [
        f"host {name}: {p.hostname}, {p.os} {p.machine}, user {p.user}",
        f"  root {p.root}, {size(p.disk_free_bytes)} free",
        f"  {p.cpus} processors, {size(p.memory_bytes or 0)} of memory, {p.latency_s * 1000:.1f} ms away",
        f"  Python {p.python_version} at {p.python}",
    ]
    lines += [f"  {line}" for line in gpu_lines(report)]
    lines += [f"  no GPU: {p.gpu_problem}"] if p.gpu_problem else []
    lines += [f"  clock {p.clock_skew_s:+.1f} s off"] if abs(p.clock_skew_s) > 1 else []
    lines.append(
        "  " + ", ".join(f"{library} {version or 'missing'}" for library, version in report.libraries.items())
    )
    if report.missing:
        lines.append(f"  missing for training: {', '.join(report.missing)}. {report.remedy}")
    return "\n".join(lines)


@command.command(epilog="Example: hafs-tui host bootstrap box --torch torch==2.13.0")
@click.argument("name")
@click.option("--index-url", help="The package index that torch comes from (a CUDA build's, on Windows).")
@click.option("--torch", metavar="SPEC", help="What is asked for, as pip has it; else any that fits.")
@click.option("--library-index", help="The package index of all else; else pip's own settings.")
@in_workspace
async def bootstrap(
    ws: Workspace,
    session: Session,
    name: str,
    index_url: str | None,
    torch: str | None,
    library_index: str | None,
) -> None:
    """Install the training libraries on a host, in an environment of their own, and prove that torch sees its
    card. A torch that was built for CUDA is kept as it is."""
    from backend.hosts.bootstrap import bootstrap_host

    done = await bootstrap_host(
        ws, name, session.tell, index_url=index_url, torch=torch, library_index=library_index
    )
    sees = f"sees {', '.join(done.cards)}" if done.cards else "sees no card"
    session.show(done, f"host {name}: torch {done.torch} (CUDA {done.cuda or 'none'}) {sees}; {done.python}")


@command.command(epilog="Example: hafs-tui host models box --pull qwen2.5-coder:14b")
@click.argument("name")
@click.option("--pull", metavar="MODEL", help="Fetch a model first.")
@click.option("--remove", metavar="MODEL", help="Remove a model first.")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=11434, show_default=True, help="Ollama's there."
)
@in_workspace
async def models(
    ws: Workspace, session: Session, name: str, pull: str | None, remove: str | None, port: int
) -> None:
    """The Ollama models of a host, with their sizes and the total."""
    from backend.hosts.ollama_models import list_models, pull_model, remove_model

    if remove is not None:
        found = await remove_model(ws, name, remove, port)
    if pull is not None:
        found = await pull_model(ws, name, pull, copy_teller(session), port)
    if remove is None and pull is None:
        found = await list_models(ws, name, port)
    total = sum(model.size for model in found)
    rows = [(model.name, size(model.size), model.digest.removeprefix("sha256:")[:12]) for model in found]
    text = f"{table(('model', 'size', 'digest'), rows)}\n{many(len(found), 'model')}, {size(total)} in all"
    session.show({"host": name, "models": found, "total_bytes": total}, text)


@command.command(epilog="Example: hafs-tui host gpus box --follow")
@click.argument("name", required=False)
@click.option("--follow", is_flag=True, help="Go on, one reading a line, until stopped.")
@in_workspace
async def gpus(ws: Workspace, session: Session, name: str | None, follow: bool) -> None:
    """Readings of a host's GPUs, or of its processor and memory where it has none; of every host without NAME."""
    from backend.hosts.catalog import list_hosts
    from backend.hosts.gauges import read_gauges
    from backend.settings import SettingsError
    from remote import HostError

    if follow:
        await _follow(ws, session, name)
        return
    if name is not None:
        _show_readings(session, await read_gauges(ws, name))
        return
    found: list[Reading] = []
    failed = False
    for one in await asyncio.to_thread(list_hosts, ws):
        try:
            found += await read_gauges(ws, one)
        except (HostError, SettingsError) as error:
            failed = True
            click.echo(sanitize(str(error)), err=True)
    _show_readings(session, found)
    if failed and not found:
        sys.exit(EXIT_FAILED)


async def _follow(ws: Workspace, session: Session, name: str | None) -> None:
    """A table (with --json a line) for each second's readings, until a signal."""
    from backend.hosts.catalog import host_settings
    from backend.hosts.gauges import Gauges, watch_gauges

    if name is not None:
        host_settings(ws, name)
    gauges, told = Gauges(seconds=1), set[str]()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(watch_gauges(ws, gauges, [name] if name else None))
        while True:
            await asyncio.sleep(1)
            for problem in set(gauges.problems.values()) - told:
                told.add(problem)
                click.echo(sanitize(problem), err=True)
            if readings := gauges.latest():
                _show_readings(session, readings)
                sys.stdout.flush()


def _show_readings(session: Session, readings: list[Reading]) -> None:
    rows = [
        (r.host, r.index, r.name, r.utilization, r.memory_used_mib, r.memory_total_mib, r.temperature_c, r.power_w,
         r.stale_s)
        for r in readings
    ]  # fmt: skip
    headers = ("host", "index", "name", "util %", "memory MiB", "of MiB", "°C", "W", "stale s")
    session.show(readings, table(headers, rows))


def _copying(session: Session, what: object) -> Callable[[int, int], None]:
    tell = copy_teller(session)
    return lambda done, total: tell(str(what), done, total)


@command.command(epilog="Example: hafs-tui host put box ./data.jsonl datasets/data.jsonl")
@click.argument("name")
@click.argument("local", type=click.Path(exists=True, path_type=Path))
@click.argument("remote")
@in_workspace
async def put(ws: Workspace, session: Session, name: str, local: Path, remote: str) -> None:
    """Copy a file or folder to a host, verified by SHA-256; what is there already is skipped."""
    from backend.hosts.catalog import open_named_host

    async with open_named_host(ws, name) as host:
        done = await host.put(local, remote, _copying(session, local))
    session.show(
        done,
        f"{done.files} files, {done.size} bytes ({done.moved} sent) at {done.path}, sha256 {done.sha256}",
    )


@command.command(epilog="Example: hafs-tui host get box runs/pilot/final ./final")
@click.argument("name")
@click.argument("remote")
@click.argument("local", type=click.Path(path_type=Path))
@in_workspace
async def get(ws: Workspace, session: Session, name: str, remote: str, local: Path) -> None:
    """Copy a file or folder from a host, verified by SHA-256; what is here already is skipped."""
    from backend.hosts.catalog import open_named_host

    async with open_named_host(ws, name) as host:
        done = await host.get(remote, local, _copying(session, remote))
    session.show(
        done,
        f"{done.files} files, {done.size} bytes ({done.moved} received) at {done.path}, sha256 {done.sha256}",
    )


@command.command(epilog="Example: hafs-tui host shell box")
@click.argument("name")
@in_workspace
async def shell(ws: Workspace, session: Session, name: str) -> None:
    """An interactive shell on a host, through ssh."""
    from backend.hosts.catalog import shell_command

    argv = await asyncio.to_thread(shell_command, ws, name)
    os.execvp(argv[0], argv)  # noqa: S606 - a fixed program with an argument vector
