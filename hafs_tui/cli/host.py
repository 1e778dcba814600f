"""`hafs-tui host`: add, list, remove, probe, gpus, put, get, shell."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hafs_tui.cli.groups import Group
from hafs_tui.cli.support import EXIT_FAILED, Session, in_workspace, table

if TYPE_CHECKING:
    from backend.hosts.catalog import HostReport
    from backend.settings import Workspace


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
@click.option("--scheduler", type=click.Choice(["none"]), default="none", help="Who places the jobs.")
@click.option(
    "--accept-new", is_flag=True, help="Trust the host's key if it was never seen; a changed one never."
)
@in_workspace
async def add(ws: Workspace, session: Session, /, name: str, accept_new: bool, **given: Any) -> None:
    """Write a host into hosts.toml and look at it."""
    from backend.hosts.catalog import add_host, probe_host
    from backend.settings import HostSettings

    await asyncio.to_thread(add_host, ws, name, HostSettings(kind="ssh", **given))
    report = await probe_host(ws, name, accept_new=accept_new)
    session.show(_report_json(name, report), _describe(name, report))


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
    from backend.hosts.catalog import remove_host

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
    session.show(_report_json(name, report), _describe(name, report))


def _report_json(name: str, report: HostReport) -> dict[str, Any]:
    return {
        "host": name,
        "probe": report.probe,
        "libraries": report.libraries,
        "missing": report.missing,
        "remedy": report.remedy,
    }


def _describe(name: str, report: HostReport) -> str:
    from hafs_tui.cli.support import plain

    lines = [f"host {name}:"]
    lines += [
        f"  {key}: {value}" for key, value in plain(report.probe).items() if value not in (None, "", [])
    ]
    lines += [f"  {library}: {version or 'missing'}" for library, version in report.libraries.items()]
    if report.missing:
        lines.append(f"  missing for training: {', '.join(report.missing)}. {report.remedy}")
    return "\n".join(lines)


@command.command(epilog="Example: hafs-tui host gpus box --follow")
@click.argument("name", required=False)
@click.option("--follow", is_flag=True, help="Go on, one reading a line, until stopped.")
@in_workspace
async def gpus(ws: Workspace, session: Session, name: str | None, follow: bool) -> None:
    """Readings of a host's GPUs, or of its processor and memory where it has none; of every host without NAME."""
    from backend.hosts.catalog import list_hosts, open_named_host
    from backend.hosts.gauges import read_gauges
    from hafs_tui.cli.support import plain

    names = [name] if name else list(await asyncio.to_thread(list_hosts, ws))
    headers = ("host", "index", "name", "util %", "memory MiB", "of MiB", "°C", "W", "stale s")

    def rows(readings: list[Any]) -> list[tuple[object, ...]]:
        return [
            (
                r.host,
                r.index,
                r.name,
                r.utilization,
                r.memory_used_mib,
                r.memory_total_mib,
                r.temperature_c,
                r.power_w,
                r.stale_s,
            )
            for r in readings
        ]

    if follow:
        async with open_named_host(ws, names[0]) as host:
            async for readings in host.gpus():
                session.show([plain(r) for r in readings], table(headers, rows(readings)))
                sys.stdout.flush()
        return
    found: list[Any] = []
    failed = False
    for one in names:
        try:
            found += await read_gauges(ws, one)
        except Exception as error:
            if name:
                raise
            failed = True
            click.echo(f"{one}: {error}", err=True)
    session.show(found, table(headers, rows(found)))
    if failed and not found:
        sys.exit(EXIT_FAILED)


@command.command(epilog="Example: hafs-tui host put box ./data.jsonl datasets/data.jsonl")
@click.argument("name")
@click.argument("local", type=click.Path(exists=True, path_type=Path))
@click.argument("remote")
@in_workspace
async def put(ws: Workspace, session: Session, name: str, local: Path, remote: str) -> None:
    """Copy a file or folder to a host, verified by SHA-256; what is there already is skipped."""
    from backend.hosts.catalog import open_named_host

    async with open_named_host(ws, name) as host:
        done = await host.put(local, remote)
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
        done = await host.get(remote, local)
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
