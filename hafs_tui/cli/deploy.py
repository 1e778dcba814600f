"""`hafs-tui deploy`: hf, gguf, ollama, vllm, status, stop, rollback, chat."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hafs_tui.cli.groups import Group
from hafs_tui.cli.support import Session, in_workspace, step_teller, table
from hafs_tui.glyphs import sanitize

if TYPE_CHECKING:
    from backend.deployment.chat import Chat
    from backend.deployment.gate import Terms
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
    from backend.deployment.gate import gate_words

    words = gate_words(d.details)
    return f"{d.name} version {d.version} ({d.kind} of {d.model}): {d.state}{where}" + (
        f"\n{words}" if words else ""
    )


def _on_terms(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of the gate, the same for all that publishes."""
    for option in reversed(
        (
            click.option("--baseline", default="", help="The model that it is compared with; else the newest."),
            click.option("--benchmark", "benchmarks", multiple=True, help="What counts; else every benchmark."),
            click.option("--allow-worse", default="", metavar="REASON", help="Publish what is worse."),
            click.option("--unevaluated", default="", metavar="REASON", help="Publish without a comparison."),
            click.option("--allow-template", default="", metavar="REASON", help="Publish with another template."),
        )
    ):  # fmt: skip
        function = option(function)
    return function


def _terms(options: Mapping[str, Any]) -> Terms:
    from backend.deployment.gate import Terms

    return Terms(**options)


@command.command(epilog="Example: hafs-tui deploy hf run:pilot-dpo ./hafs-coder --name hafs-coder")
@click.argument("model")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--name", required=True, help="The deployment's name.")
@_on_terms
@in_workspace
async def hf(ws: Workspace, session: Session, /, model: str, folder: Path, name: str, **gate: Any) -> None:
    """A merged Hugging Face folder with a model card, safetensors only."""
    from backend.deployment.folders import deploy_folder

    made = await deploy_folder(
        ws, model, folder, name=name, terms=_terms(gate), on_event=step_teller(session)
    )
    session.show(as_json(made), f"{_line(made)}\nin {folder}")


@command.command(epilog="Example: hafs-tui deploy merge run:pilot-dpo")
@click.argument("model")
@click.option("--host", help="Where it is merged; else where the adapter is.")
@in_workspace
async def merge(ws: Workspace, session: Session, model: str, host: str | None) -> None:
    """Merge an adapter into its unquantised base, as a model of the registry."""
    from backend.deployment.merging import merge_adapter

    made = await merge_adapter(ws, model, host=host, on_event=step_teller(session))
    session.show(made, f"{made.name}: {made.location} on {made.host}")


@command.command(epilog="Example: hafs-tui deploy rate 12 good")
@click.argument("exchange_id", type=int)
@click.argument("rating", type=click.Choice(["good", "bad"]))
@in_workspace
async def rate(ws: Workspace, session: Session, exchange_id: int, rating: str) -> None:
    """Say whether a reply was good; `chat --json` names its exchange."""
    from backend.deployment.chat import rate as rate_exchange

    await rate_exchange(ws, exchange_id, 1 if rating == "good" else -1)
    session.show({"exchange": exchange_id, "rating": rating}, f"exchange {exchange_id} is rated {rating}")


@command.command(epilog="Example: hafs-tui deploy gguf run:pilot-dpo --name hafs-coder")
@click.argument("model")
@click.option("--name", help="The deployment's name; not needed with --convert-only.")
@click.option("--convert-only", is_flag=True, help="Only make and register the GGUF; its name is gguf:NAME.")
@_on_terms
@in_workspace
async def gguf(
    ws: Workspace, session: Session, /, model: str, name: str | None, convert_only: bool, **gate: Any
) -> None:
    """Serve a GGUF by llama.cpp from this process, on loopback, until it is stopped."""
    from backend.deployment.gguf import convert_to_gguf
    from backend.deployment.serving import ServedModel, serve_until_stopped

    if convert_only:
        made = await convert_to_gguf(ws, model, name=name, on_event=step_teller(session))
        session.show(made, f"gguf:{made.name} is made of {model}: {made.location} on {made.host}")
        return
    if name is None:
        raise click.UsageError("--name is missing: under which name is it served?")

    def ready(served: ServedModel) -> None:
        session.show(
            as_json(served.deployment),
            f"{_line(served.deployment)}\nCtrl+C stops it, or: hafs-tui deploy stop {name}",
        )
        sys.stdout.flush()

    ended = await serve_until_stopped(
        ws, model, name=name, terms=_terms(gate), on_ready=ready, on_event=step_teller(session)
    )
    session.tell(_line(ended))


@command.command(epilog="Example: hafs-tui deploy ollama run:pilot-dpo --tag hafs-coder:14b")
@click.argument("model")
@click.option("--tag", required=True, help="The tag to create.")
@click.option("--base-url", help="The Ollama server's address; else the settings'.")
@click.option("--name", help="The deployment's name; else the tag.")
@click.option("--system", default="", help="The system text of the Modelfile.")
@_on_terms
@in_workspace
async def ollama(
    ws: Workspace,
    session: Session,
    /,
    model: str,
    tag: str,
    base_url: str | None,
    name: str | None,
    system: str,
    **gate: Any,
) -> None:
    """Merge, convert, upload and create a tag on an Ollama server."""
    from backend.deployment.ollama import deploy_ollama

    progress = session.progress()
    made = await deploy_ollama(
        ws, model, tag, base_url=base_url, name=name, system=system, terms=_terms(gate), on_event=step_teller(session),
        on_progress=lambda what, done, total: progress(f"{what}: {done}/{total}" if total else what),
    )  # fmt: skip
    session.show(as_json(made), _line(made))


@command.command(epilog="Example: hafs-tui deploy vllm run:pilot-dpo --host box --name hafs-coder")
@click.argument("model")
@click.option("--host", required=True, help="Whose vLLM serves it.")
@click.option("--name", required=True, help="The deployment's name, to which it answers.")
@click.option("--program", default="", help="vLLM's path there; else beside its Python, or on its PATH.")
@click.option("--port", default=0, help="On the host's loopback; 0 takes a free one.")
@click.option("--beside-jobs", is_flag=True, help="Start it though other jobs hold or wait for the cards.")
@click.option(
    "--arg", "arguments", multiple=True, help="An argument for vLLM, as in --arg=--max-model-len=4096."
)
@_on_terms
@in_workspace
async def vllm(
    ws: Workspace,
    session: Session,
    /,
    model: str,
    host: str,
    name: str,
    program: str,
    port: int,
    beside_jobs: bool,
    arguments: tuple[str, ...],
    **gate: Any,
) -> None:
    """Serve a model, or an adapter beside its base, by a host's vLLM: a job on its loopback, with a key."""
    from backend.deployment.vllm import deploy_vllm

    made = await deploy_vllm(
        ws, model, host=host, name=name, program=program, port=port, beside_jobs=beside_jobs,
        arguments=arguments, terms=_terms(gate),
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
    """Bring the version before back; a GGUF that no process serves any more is served by this one."""
    from backend.deployment.rollback import rollback as roll_back
    from backend.deployment.rollback import serve_again
    from backend.deployment.serving import ServedModel

    back = await roll_back(ws, name)
    if back.kind != "gguf" or back.state == "serving":
        session.show(as_json(back), _line(back))
        return

    def ready(served: ServedModel) -> None:
        session.show(as_json(served.deployment), f"{_line(served.deployment)}\nCtrl+C stops it")
        sys.stdout.flush()

    session.tell(_line(await serve_again(ws, back, on_ready=ready)))


@command.command(epilog="Example: hafs-tui deploy chat hafs-coder --message 'Load A from $12'")
@click.argument("name")
@click.option("--message", help="One message; without it, lines are read until the end of input.")
@click.option("--system", default="", help="A system text before it.")
@click.option("--max-tokens", default=256, show_default=True, help="Longest reply.")
@in_workspace
async def chat(
    ws: Workspace, session: Session, name: str, message: str | None, system: str, max_tokens: int
) -> None:
    """Talk to a deployment, or to any model that answers; the reply streams, and each exchange is stored."""
    from backend.deployment.chat import open_chat

    said: list[dict[str, object]] = []
    async with open_chat(ws, name, system=system, max_tokens=max_tokens) as conversation:
        async for text in _messages(message):
            reply = await _say(session, conversation, text)
            said.append({"message": text, "reply": reply, "exchange": conversation.exchange_id})
    if session.as_json:
        session.show({"name": name, **(said[0] if message is not None else {"messages": said})}, "")


async def _messages(only: str | None) -> AsyncIterator[str]:
    """The one message, or the lines of standard input, with a prompt where a person types them."""
    if only is not None:
        yield only
        return
    while True:
        if sys.stdin.isatty():
            click.echo("> ", nl=False, err=True)
        line = await asyncio.to_thread(sys.stdin.readline)
        if not line:
            return
        if line.strip():
            yield line.strip()


async def _say(session: Session, conversation: Chat, text: str) -> str:
    pieces: list[str] = []
    async with aclosing(conversation.say(text)) as reply:
        async for piece in reply:
            pieces.append(piece)
            if not session.as_json:
                click.echo(sanitize(piece), nl=False)
    if not session.as_json:
        click.echo()
    return "".join(pieces)
