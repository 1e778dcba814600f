"""`hafs-tui lineage ID`: what a model, sample or benchmark item came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hafs_tui.cli.groups import Command
from hafs_tui.cli.support import Session, in_workspace

if TYPE_CHECKING:
    from backend.settings import Workspace


@click.command(cls=Command, epilog="Example: hafs-tui lineage run:pilot-dpo")
@click.argument("identifier")
@in_workspace
async def command(ws: Workspace, session: Session, identifier: str) -> None:
    """What a model, run, dataset, sample (sample:ID) or benchmark item came from."""
    from backend.registry.lineage import lineage

    found = await lineage(ws, identifier)
    lines = [found.subject, *(f"  {step.kind} {step.name}: {step.detail}" for step in found.steps)]
    session.show(found, "\n".join(lines))
