"""`hafs-tui doctor`: what is there, what is missing for which feature, and the command that brings it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hafs_tui.cli.groups import Command
from hafs_tui.cli.support import Session, in_workspace

if TYPE_CHECKING:
    from backend.settings import Workspace


@click.command(cls=Command, epilog="Example: hafs-tui doctor --host box")
@click.option("--host", help="Look at this host as well.")
@in_workspace
async def command(ws: Workspace, session: Session, host: str | None) -> None:
    """Say what is there, what is missing for which feature, and what brings it."""
    from backend.upkeep.doctor import examine

    checks = await examine(ws)
    lines = []
    for check in checks:
        lines.append(f"{'ok     ' if check.found else 'missing'}  {check.name}: {check.detail}")
        if not check.found:
            lines.append(f"         needed for {check.feature}; {check.remedy}")
    value: dict[str, object] = {"checks": checks}
    if host:
        from backend.hosts.catalog import probe_host
        from hafs_tui.cli.host import describe, report_json

        report = await probe_host(ws, host)
        value["host"] = report_json(host, report)
        lines.append(describe(host, report))
    session.show(value, "\n".join(lines))
