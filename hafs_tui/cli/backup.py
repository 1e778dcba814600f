"""`hafs-tui backup FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hafs_tui.cli.groups import Command
from hafs_tui.cli.support import Session, in_workspace, size

if TYPE_CHECKING:
    from backend.settings import Workspace


@click.command(cls=Command, epilog="Example: hafs-tui backup ~/hafs-20261124.db")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace the file where it exists.")
@in_workspace
async def command(ws: Workspace, session: Session, file: Path, overwrite: bool) -> None:
    """Write a consistent copy of the database to FILE, while others go on working."""
    from backend.upkeep.backup import backup

    made = await backup(ws, file, overwrite=overwrite)
    session.show(
        made, f"{size(made.size_bytes)} in {made.path}; to restore, put it at training/hafs.db of a workspace"
    )
