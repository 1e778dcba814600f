"""`hafs-tui prune`: old files that can be made again, shown first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hafs_tui.cli.groups import Command
from hafs_tui.cli.support import Session, in_workspace, size

if TYPE_CHECKING:
    from backend.settings import Workspace


@click.command(cls=Command, epilog="Example: hafs-tui prune --older-than-days 14 --yes")
@click.option("--older-than-days", default=30.0, show_default=True, help="Only what is older.")
@click.option("--yes", is_flag=True, help="Remove it; without this, it is only shown.")
@in_workspace
async def command(ws: Workspace, session: Session, older_than_days: float, yes: bool) -> None:
    """Show old files that may go, with their sizes; remove them with --yes."""
    from backend.upkeep.pruning import find_waste, remove_waste

    found = await find_waste(ws, older_than_days)
    total = sum(waste.size_bytes for waste in found)
    lines = [f"{size(waste.size_bytes):>12}  {waste.path}  ({waste.why})" for waste in found]
    if not found:
        lines.append("nothing to prune")
    elif yes:
        await remove_waste(found)
        lines.append(f"removed: {size(total)}")
    else:
        lines.append(
            f"{size(total)} could go; remove them with: hafs-tui prune --older-than-days {older_than_days:g} --yes"
        )
    session.show({"found": found, "total_bytes": total, "removed": bool(found) and yes}, "\n".join(lines))
