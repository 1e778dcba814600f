"""`hafs-tui models`: list, show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hafs_tui.cli.groups import Group
from hafs_tui.cli.support import Session, facts, in_workspace, plain, size, table

if TYPE_CHECKING:
    from backend.settings import Workspace


@click.group(cls=Group, epilog="Example: hafs-tui models list")
def command() -> None:
    """The registry of models."""


@command.command("list", epilog="Example: hafs-tui models list")
@in_workspace
async def list_(ws: Workspace, session: Session) -> None:
    """Every model, newest first."""
    from backend.registry.catalog import list_models

    found = await list_models(ws)
    rows = [
        (m.name, m.kind, m.parent, m.host, "" if m.size_bytes is None else size(m.size_bytes), m.location)
        for m in found
    ]
    session.show(found, table(("name", "kind", "from", "host", "size", "where"), rows))


@command.command(epilog="Example: hafs-tui models show pilot-sft")
@click.argument("name")
@in_workspace
async def show(ws: Workspace, session: Session, name: str) -> None:
    """One model."""
    from backend.registry.catalog import show_model

    model = await show_model(ws, name)
    session.show(model, facts(plain(model)))
