"""`hafs-tui train plan`: whether a recipe fits a card, part by part, and the nearest one that does."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from backend.contract.recipe import DpoRecipe
from hafs_tui.cli.groups import Command
from hafs_tui.cli.recipe_options import given, recipe_options
from hafs_tui.cli.support import EXIT_REFUSED, EXIT_WRONG_USE, Session, in_workspace, table

if TYPE_CHECKING:
    from backend.settings import Workspace
    from backend.store.runs import RunKind
    from backend.training.planner import Advice, Plan

_BAR = 56
# A plan needs no places, and takes the models as options of its own.
PLACES = ("output_dir", "sft_model", "base_model", "preference_data", "eval_dataset")


@click.command(
    cls=Command,
    epilog="Example: hafs-tui train plan --base_model Qwen/Qwen2.5-Coder-14B-Instruct --preset qlora-16gb "
    "--vram-gib 16",
)
@click.option(
    "--base_model", "--base-model", "base_model", help="The base: hub:OWNER/NAME, path:FOLDER, a name."
)
@click.option("--vram-gib", type=click.FloatRange(min=0.1), help="The card's memory in GiB.")
@click.option("--host", help="Plan for this host's first card, corrected by what its runs really took.")
@click.option("--sft_model", "--sft-model", "sft_model", help="Plan a DPO run that starts from this.")
@click.option("--dpo", is_flag=True, help="Plan a DPO run: two sequences for each pair.")
@click.option("--preset", help="A recipe of config/recipes/; flags lie over it.")
@recipe_options(DpoRecipe, PLACES)
@in_workspace
async def plan(
    ws: Workspace, session: Session, /, vram_gib: float | None, host: str | None, sft_model: str | None, dpo: bool,
    preset: str | None, base_model: str | None, **flags: Any,
) -> None:  # fmt: skip
    """Say whether a run fits a card. Exit code 3 where it does not, with the nearest recipe that does."""
    from backend.training.fitting import plan_run
    from backend.training.recipes import recipe_values

    reference = sft_model or base_model
    if reference is None:
        click.echo("Error: give --base_model (or --sft_model, for a DPO run)", err=True)
        sys.exit(EXIT_WRONG_USE)
    kind: RunKind = "dpo" if dpo or sft_model else "sft"
    values = recipe_values(ws, kind, preset, given(flags))
    made, advice, card = await plan_run(ws, kind, values, reference, vram_gib=vram_gib, host=host)
    session.show(
        _as_json(made, advice, reference, kind, card.name), _as_text(made, advice, reference, kind, card.name)
    )
    if not made.fits:
        sys.exit(EXIT_REFUSED)


def _as_json(plan: Plan, advice: Advice | None, reference: str, kind: str, card: str) -> dict[str, Any]:
    return {
        "model": plan.model.name, "source": plan.model.source, "parameters": plan.model.parameters, "kind": kind,
        "card": card, "card_bytes": plan.card, "available_bytes": plan.available, "total_bytes": plan.total,
        "correction": plan.correction, "fits": plan.fits, "notes": plan.notes,
        "parts": [part._asdict() for part in plan.parts],
        "advice": None if advice is None else {
            "flags": [*_start_flags(reference, kind), *_recipe_flags(advice.plan)],
            "total_bytes": advice.plan.total,
            "changes": [change._asdict() for change in advice.changes],
        },
    }  # fmt: skip


def _as_text(plan: Plan, advice: Advice | None, reference: str, kind: str, card: str) -> str:
    from backend.training.planner import gib

    rows = [(part.name, gib(part.bytes), part.formula) for part in plan.parts]
    says = "fits" if plan.fits else "does not fit"
    lines = [
        f"{plan.model.name}: {plan.model.parameters / 1e9:.2f}B parameters ({plan.model.source})",
        "",
        table(("part", "size", "how it is counted"), rows),
        "",
        _bar(plan.total, plan.available, plan.card),
        f"{gib(plan.total)} of {gib(plan.available)} ({card}, less its margin): {says}",
    ]
    if plan.correction != 1:
        lines.append(f"corrected by {plan.correction:.2f}: what comparable runs on this host really took")
    lines += [f"note: {note}" for note in plan.notes]
    if advice is not None:
        changes = [(change.field, change.before, change.after) for change in advice.changes]
        flags = [*_start_flags(reference, kind), *_recipe_flags(advice.plan)]
        lines += ["", f"The nearest recipe that fits ({gib(advice.plan.total)}):",
                  table(("field", "now", "then"), changes), "", shlex.join(flags)]  # fmt: skip
    elif not plan.fits:
        lines += ["", "No recipe of this model fits: take a smaller model or a larger card."]
    return "\n".join(lines)


def _bar(need: int, available: int, card: int) -> str:
    """The need against the card: `#` needed, `!` beyond what it has to give, `:` its margin."""
    scale = max(need, card)
    cells = []
    for cell in range(_BAR):
        place = (cell + 0.5) * scale / _BAR
        if place < need:
            cells.append("#" if place < available else "!")
        else:
            cells.append("." if place < available else ":")
    return f"[{''.join(cells)}]"


def _start_flags(reference: str, kind: str) -> list[str]:
    return ["--sft_model", reference] if kind == "dpo" else ["--base_model", reference]


def _recipe_flags(plan: Plan) -> tuple[str, ...]:
    from backend.training.planner import as_flags

    return as_flags(plan.recipe)
