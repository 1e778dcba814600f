"""`hafs-tui deploy`: hf, gguf, ollama, status, stop, rollback, chat."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hafs_tui.cli.groups import Group
from hafs_tui.cli.support import Session, in_workspace, table
from hafs_tui.sanitize import sanitize

if TYPE_CHECKING:
    from backend.settings import Workspace
    from backend.store.deployments import Deployment


@click.group(cls=Group, epilog="Example: hafs-tui deploy ollama run:pilot-dpo --tag hafs-coder:14b")
def command() -> None:
    """From a model to an answer."""


def as_json(d: Deployment) -> dict[str, Any]:
    return {
        "id": d.id, "name": d.name, "kind": d.kind, "model": d.model, "state": d.state, "endpoint": d.endpoint,
        "version": d.version, "host": d.host, "error": d.error, "details": d.details,
    }  # fmt: skip


def _line(d: Deployment) -> str:
    where = f" at {d.endpoint}" if d.endpoint else ""
    return f"{d.name} version {d.version} ({d.kind} of {d.model}): {d.state}{where}"


@command.command(epilog="Example: hafs-tui deploy hf run:pilot-dpo ./hafs-coder --name hafs-coder")
@click.argument("model")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--name", required=True, help="The deployment's name.")
@in_workspace
async def hf(ws: Workspace, session: Session, model: str, folder: Path, name: str) -> None:
    """A merged Hugging Face folder with a model card, safetensors only."""
    from backend.deployment.folders import deploy_folder

    made = await deploy_folder(ws, model, folder, name=name)
    session.show(as_json(made), _line(made))


@command.command(epilog="Example: hafs-tui deploy gguf run:pilot-dpo --name hafs-coder")
@click.argument("model")
@click.option("--name", required=True, help="The deployment's name.")
@in_workspace
async def gguf(ws: Workspace, session: Session, model: str, name: str) -> None:
    """Serve a GGUF by llama.cpp from this process, on loopback, until it is stopped."""
    from backend.deployment.serving import serve_gguf

    async with serve_gguf(ws, model, name=name) as served:
        session.show(as_json(served.deployment), f"{_line(served.deployment)}\nCtrl+C stops it")
        await asyncio.Event().wait()


@command.command(epilog="Example: hafs-tui deploy ollama run:pilot-dpo --tag hafs-coder:14b")
@click.argument("model")
@click.option("--tag", required=True, help="The tag to create.")
@click.option("--base-url", help="The Ollama server's address; else the settings'.")
@click.option("--name", help="The deployment's name; else the tag.")
@click.option("--system", default="", help="The system text of the Modelfile.")
@in_workspace
async def ollama(
    ws: Workspace, session: Session, model: str, tag: str, base_url: str | None, name: str | None, system: str
) -> None:
    """Merge, convert, upload and create a tag on an Ollama server."""
    from backend.deployment.ollama import deploy_ollama

    made = await deploy_ollama(
        ws, model, tag, base_url=base_url, name=name, system=system,
        on_progress=lambda what, done, total: session.tell(f"{what}: {done}/{total}" if total else what),
    )  # fmt: skip
    session.show(as_json(made), _line(made))


@command.command(epilog="Example: hafs-tui deploy status")
@in_workspace
async def status(ws: Workspace, session: Session) -> None:
    """Every deployment, as it really is now."""
    from backend.deployment.serving import deployments

    found = await deployments(ws)
    rows = [(d.name, d.version, d.kind, d.model, d.state, d.endpoint) for d in found]
    session.show(
        [as_json(d) for d in found], table(("name", "version", "kind", "model", "state", "endpoint"), rows)
    )


@command.command(epilog="Example: hafs-tui deploy stop hafs-coder")
@click.argument("name")
@in_workspace
async def stop(ws: Workspace, session: Session, name: str) -> None:
    """Stop a deployment that a process of ours serves."""
    from backend.deployment.serving import stop as stop_deployment

    stopped = await stop_deployment(ws, name)
    session.show(as_json(stopped), _line(stopped))


@command.command(epilog="Example: hafs-tui deploy rollback hafs-coder")
@click.argument("name")
@in_workspace
async def rollback(ws: Workspace, session: Session, name: str) -> None:
    """Bring the version before back."""
    from backend.deployment.rollback import rollback as roll_back

    back = await roll_back(ws, name)
    session.show(as_json(back), _line(back))


@command.command(epilog="Example: hafs-tui deploy chat hafs-coder --message 'Load A from $12'")
@click.argument("name")
@click.option("--message", help="One message; without it, lines are read until the end of input.")
@click.option("--max-tokens", default=256, show_default=True, help="Longest reply.")
@in_workspace
async def chat(ws: Workspace, session: Session, name: str, message: str | None, max_tokens: int) -> None:
    """Talk to a deployment; the reply streams."""
    from backend.deployment.chat import chat as talk

    async def once(text: str) -> str:
        pieces: list[str] = []
        async with talk(ws, name, text, max_tokens=max_tokens) as reply:
            async for piece in reply:
                pieces.append(piece)
                if not session.as_json:
                    click.echo(sanitize(piece), nl=False)
        if not session.as_json:
            click.echo()
        return "".join(pieces)

    if message is not None:
        reply = await once(message)
        if session.as_json:
            session.show({"name": name, "message": message, "reply": reply}, "")
        return
    stdin = click.get_text_stream("stdin")
    while line := await asyncio.to_thread(stdin.readline):
        if line.strip():
            reply = await once(line.strip())
            if session.as_json:
                session.show({"name": name, "message": line.strip(), "reply": reply}, "")
