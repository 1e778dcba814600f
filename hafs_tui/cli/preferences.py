"""`hafs-tui preferences`: generate, list, show, choose, undo, import, export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hafs_tui.cli.groups import Group
from hafs_tui.cli.support import EXIT_FAILED, Session, in_workspace, many, table

if TYPE_CHECKING:
    from backend.settings import Workspace
    from backend.store.pairs import Pair


@click.group(cls=Group, epilog="Example: hafs-tui preferences list")
def command() -> None:
    """Preference pairs."""


def as_json(pair: Pair) -> dict[str, Any]:
    return {
        "id": pair.id, "prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected, "margin": pair.margin,
        "scorer": pair.scorer, "source": pair.source, "state": pair.state, "batch": pair.batch,
    }  # fmt: skip


@command.command(
    epilog="Example: hafs-tui preferences generate --model deployment:hafs-coder --dataset pilot --num-samples 40 "
    "--candidates-per-prompt 4 --scorer reference --output preferences.jsonl"
)
@click.option(
    "--model",
    required=True,
    help="What answers: deployment:NAME, ollama:TAG, api:provider/model, gguf:NAME (of a run: deploy gguf run:NAME "
    "--convert-only).",
)
@click.option("--dataset", help="NAME[@version]: its training prompts are asked; else approved samples'.")
@click.option("--num-samples", type=click.IntRange(min=1), required=True, help="Prompts to ask.")
@click.option(
    "--candidates-per-prompt",
    type=click.IntRange(min=2),
    default=4,
    show_default=True,
    help="Answers to each.",
)
@click.option(
    "--scorer",
    type=click.Choice(["reference", "execution", "llm", "human"]),
    required=True,
    help="Who says which is better.",
)
@click.option("--judge", help="For --scorer llm: api:provider/model of the judge.")
@click.option(
    "--normalise",
    type=click.Choice(["text", "asm"]),
    help="For --scorer reference: how answers are compared; else as the domain says.",
)
@click.option("--batch", help="Name of the batch; the same name goes on where it was.")
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the pairs there in TRL's format."
)
@in_workspace
async def generate(ws: Workspace, session: Session, /, output: Path | None, **given: Any) -> None:
    """Ask a model several times for each prompt, score the answers, and pair the best with the worst."""
    from backend.preferences.exporting import export as export_pairs
    from backend.preferences.running import generate_pairs

    tell = session.progress()
    made = await generate_pairs(
        ws, **given, on_progress=lambda done, total: tell(f"{done}/{total} candidates")
    )
    g, p = made.generation, made.pairing
    lines = [
        f"batch {p.batch}: {many(g.candidates, 'candidate')} to {many(g.prompts, 'prompt')}, "
        f"{many(p.pairs, 'new pair')}, {many(p.ties, 'tie')}, "
        f"{p.near_equal} near-equal, {p.too_few} with too few answers, {p.unscored} without a score"
    ]
    lines += [f"  failed: {failure}" for failure in g.failures[:5]]
    rows = None
    if output is not None and p.pairs + p.known == 0:
        lines.append(f"no pair was made, so {output} was not written")
    elif output is not None and given["scorer"] == "human":
        lines.append(
            f"the pairs wait for you: decide them (hafs-tui preferences list --state pending), then export them: "
            f"hafs-tui preferences export {output} --batch {p.batch}"
        )
    elif output is not None:
        rows = await export_pairs(ws, output, batch=p.batch, pending=True)
        lines.append(f"{many(rows, 'pair')} in {output}")
    session.show(
        {"generation": g, "pairing": p, "output": output if rows else None, "rows": rows}, "\n".join(lines)
    )
    if g.missing and p.pairs + p.known == 0:
        sys.exit(EXIT_FAILED)


@command.command("list", epilog="Example: hafs-tui preferences list --state pending")
@click.option("--state", type=click.Choice(["pending", "decided", "tie", "bad"]), help="Only these.")
@click.option("--batch", help="Only this batch.")
@in_workspace
async def list_(ws: Workspace, session: Session, state: Any, batch: str | None) -> None:
    """Every pair."""
    from backend.preferences.reviewing import every

    found = await every(ws, state=state, batch=batch)
    rows = [(p.id, p.state, p.margin, p.scorer, p.prompt[:40], p.chosen[:24], p.rejected[:24]) for p in found]
    headers = ("id", "state", "margin", "scorer", "prompt", "chosen", "rejected")
    session.show([as_json(p) for p in found], table(headers, rows))


@command.command(epilog="Example: hafs-tui preferences show 4")
@click.argument("pair_id", type=int)
@in_workspace
async def show(ws: Workspace, session: Session, pair_id: int) -> None:
    """One pair, blind: left and right as a reviewer sees them."""
    from backend.preferences.reviewing import view

    seen = await view(ws, pair_id)
    parts = (
        f"pair {pair_id} ({seen.pair.state})",
        "prompt:",
        seen.pair.prompt,
        "left:",
        seen.left,
        "right:",
        seen.right,
    )
    text = "\n\n".join(parts)
    session.show({**as_json(seen.pair), "left": seen.left, "right": seen.right}, text)


@command.command(epilog="Example: hafs-tui preferences choose 4 left")
@click.argument("pair_id", type=int)
@click.argument("choice", type=click.Choice(["left", "right", "tie", "bad"]))
@in_workspace
async def choose(ws: Workspace, session: Session, pair_id: int, choice: Any) -> None:
    """Say which answer of a pair is better."""
    from backend.preferences.reviewing import choose as decide

    seen = await decide(ws, pair_id, choice)
    session.show(as_json(seen.pair), f"pair {pair_id} is {seen.pair.state}")


@command.command(epilog="Example: hafs-tui preferences undo")
@in_workspace
async def undo(ws: Workspace, session: Session) -> None:
    """Take back your last choice."""
    from backend.preferences.reviewing import undo as take_back

    seen = await take_back(ws)
    if seen is None:
        session.show(None, "nothing to undo")
    else:
        session.show(as_json(seen.pair), f"pair {seen.pair.id} is {seen.pair.state} again")


@command.command("import", epilog="Example: hafs-tui preferences import preferences.jsonl")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--batch", help="Name of the batch; else the file's.")
@in_workspace
async def import_(ws: Workspace, session: Session, path: Path, batch: str | None) -> None:
    """Read pairs (prompt, chosen, rejected, perhaps source)."""
    from backend.preferences.importing import import_pairs

    report = await import_pairs(ws, path, batch=batch)
    lines = [f"{report.inserted} new, {report.known} known, {report.bad} bad of {report.read} rows of {path}"]
    lines += [f"  line {p.line}: {p.reason}" for p in report.problems[:20]]
    session.show(report, "\n".join(lines))


@command.command(epilog="Example: hafs-tui preferences export pairs.jsonl --conversational")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--batch", help="Only this batch.")
@click.option("--conversational", is_flag=True, help="Messages instead of plain text.")
@click.option("--pending", is_flag=True, help="Also pairs that only the scorer has decided.")
@in_workspace
async def export(
    ws: Workspace, session: Session, path: Path, batch: str | None, conversational: bool, pending: bool
) -> None:
    """Write pairs in TRL's format."""
    from backend.preferences.exporting import export as export_pairs

    count = await export_pairs(ws, path, batch=batch, conversational=conversational, pending=pending)
    session.show({"path": path, "rows": count}, f"{many(count, 'pair')} in {path}")
