"""`hafs-tui train`: sft, dpo, plan, list, show, resume, metrics."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from backend.contract.recipe import DpoRecipe, SftRecipe
from hafs_tui.cli.groups import Command, Group
from hafs_tui.cli.plan import plan
from hafs_tui.cli.recipe_options import given, recipe_options
from hafs_tui.cli.support import (
    EXIT_FAILED,
    Session,
    copy_teller,
    facts,
    going_on,
    in_workspace,
    step_teller,
    table,
)

if TYPE_CHECKING:
    from backend.settings import Workspace
    from backend.store.runs import Run

# What the program resolves itself: an output folder it chooses, and references it takes by its own options.
_LEFT_OUT = ("dataset", "sft_model", "preference_data")


@click.group(
    cls=Group,
    epilog="Example: hafs-tui train sft --host box --base_model Qwen/Qwen2.5-Coder-14B-Instruct --dataset pilot",
)
def command() -> None:
    """Fine-tune a model on a host."""


command.add_command(plan)


def as_json(run: Run, checkpoints: list[Any] | None = None) -> dict[str, Any]:
    return {
        "id": run.name, "kind": run.kind, "state": run.state, "host": run.host, "job_id": run.job_id,
        "base_model": run.base_model, "parent": run.parent, "step": run.step, "total_steps": run.total_steps,
        "loss": run.loss, "eval_loss": run.eval_loss, "output_dir": run.output_dir, "recipe": run.recipe,
        "checkpoints": [{"step": c.step, "path": c.path} for c in checkpoints or []],
    }  # fmt: skip


@command.command(
    cls=Command,
    epilog="Example: hafs-tui train sft --base_model path:./smollm2 --dataset pilot --lora_r 16 --max_steps 40",
)
@click.option("--host", default="local", show_default=True, help="Where it is trained.")
@click.option("--dataset", required=True, help="NAME[@version] of a dataset, or a path.")
@click.option("--name", help="The run's name; else it is made from the time.")
@click.option("--preset", help="A recipe of config/recipes/; flags lie over it.")
@click.option("--detach", is_flag=True, help="Return when it is launched; the job goes on by itself.")
@click.option(
    "--allow-oversize", is_flag=True, help="Launch it even where the plan says that it does not fit."
)
@recipe_options(SftRecipe, _LEFT_OUT)
@in_workspace
async def sft(
    ws: Workspace, session: Session, /, host: str, dataset: str, name: str | None, preset: str | None, detach: bool,
    allow_oversize: bool, **flags: Any,
) -> None:  # fmt: skip
    """Supervised fine-tuning of a LoRA adapter."""
    from backend.training.recipes import recipe_values
    from backend.training.runs import start_sft

    values = recipe_values(ws, "sft", preset, given(flags))
    run = await start_sft(
        ws,
        host,
        values,
        dataset=dataset,
        name=name,
        on_copy=copy_teller(session),
        allow_oversize=allow_oversize,
    )
    await _finish(ws, session, run, detach)


@command.command(
    cls=Command,
    epilog="Example: hafs-tui train dpo --sft_model run:pilot-sft --preference_data preferences.jsonl --beta 0.1",
)
@click.option("--host", default="local", show_default=True, help="Where it is trained.")
@click.option(
    "--sft_model",
    "--sft-model",
    "sft_model",
    required=True,
    help="run:NAME, an adapter's folder, or a whole model.",
)
@click.option(
    "--preference_data",
    "--preference-data",
    "preference_data",
    help="A JSONL file of pairs; else the decided pairs of the workspace.",
)
@click.option("--batch", help="Without a file: only the pairs of this batch.")
@click.option("--name", help="The run's name; else it is made from the time.")
@click.option("--preset", help="A recipe of config/recipes/; flags lie over it.")
@click.option("--detach", is_flag=True, help="Return when it is launched; the job goes on by itself.")
@click.option(
    "--allow-oversize", is_flag=True, help="Launch it even where the plan says that it does not fit."
)
@recipe_options(DpoRecipe, _LEFT_OUT)
@in_workspace
async def dpo(
    ws: Workspace, session: Session, /, host: str, sft_model: str, preference_data: str | None, batch: str | None,
    name: str | None, preset: str | None, detach: bool, allow_oversize: bool, **flags: Any,
) -> None:  # fmt: skip
    """Preference fine-tuning (DPO) from an SFT adapter or a whole model."""
    from backend.training.recipes import recipe_values
    from backend.training.runs import start_dpo

    values = recipe_values(ws, "dpo", preset, given(flags))
    run = await start_dpo(
        ws, host, values, sft_model=sft_model, preference_data=preference_data, batch=batch, name=name,
        on_copy=copy_teller(session), allow_oversize=allow_oversize,
    )  # fmt: skip
    await _finish(ws, session, run, detach)


async def _finish(ws: Workspace, session: Session, run: Run, detach: bool) -> None:
    from backend.hosts.mirror import wait_for
    from backend.training.runs import show_run

    if detach:
        session.show(
            as_json(run),
            f"run {run.name} is launched on {run.host}; watch it: hafs-tui train show {run.name}",
        )
        return
    assert run.job_id is not None  # noqa: S101 - a started run has a job
    with going_on(session, f"run {run.name}", run.job_id):
        job = await wait_for(ws, run.job_id, step_teller(session))
    details = await show_run(ws, run.name)
    text = f"run {run.name}: {job.state}, loss {_number(details.run.loss)}, eval loss {_number(details.run.eval_loss)}"
    if job.state != "done":
        text += f"\n{job.error or 'its log says more'}: hafs-tui job follow {job.id}"
        if details.checkpoints:
            text += f"\ngo on from step {details.checkpoints[-1].step}: hafs-tui train resume {run.name}"
    session.show(as_json(details.run, list(details.checkpoints)), text)
    if job.state != "done":
        sys.exit(EXIT_FAILED)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


@command.command("list", epilog="Example: hafs-tui train list")
@in_workspace
async def list_(ws: Workspace, session: Session) -> None:
    """Every run, newest first."""
    from backend.training.runs import list_runs

    found = await list_runs(ws)
    rows = [
        (r.name, r.kind, r.state, r.host, r.base_model, r.step, r.total_steps, r.loss, r.eval_loss)
        for r in found
    ]
    headers = ("name", "kind", "state", "host", "base", "step", "of", "loss", "eval loss")
    session.show([as_json(r) for r in found], table(headers, rows))


@command.command(epilog="Example: hafs-tui train show pilot-sft")
@click.argument("run")
@in_workspace
async def show(ws: Workspace, session: Session, run: str) -> None:
    """One run with its recipe and checkpoints."""
    from backend.training.runs import show_run

    details = await show_run(ws, run)
    value = as_json(details.run, list(details.checkpoints))
    value["dataset"] = f"{details.dataset.name}@{details.dataset.version}" if details.dataset else None
    memory = details.memory
    value["peak_memory_mib"] = (
        {"predicted": memory.predicted, "measured": memory.measured} if memory else None
    )
    newest = (
        f"{details.checkpoints[-1].path} (of {len(details.checkpoints)})" if details.checkpoints else None
    )
    session.show(value, facts({**value, "checkpoints": None, "newest_checkpoint": newest}))


@command.command(epilog="Example: hafs-tui train resume pilot-sft")
@click.argument("run")
@click.option("--detach", is_flag=True, help="Return when it is launched.")
@in_workspace
async def resume(ws: Workspace, session: Session, run: str, detach: bool) -> None:
    """Go on with a run from its newest complete checkpoint."""
    from backend.training.runs import resume_run

    await _finish(ws, session, await resume_run(ws, run), detach)


@command.command(epilog="Example: hafs-tui --json train metrics pilot-sft --name loss")
@click.argument("run")
@click.option("--name", "names", multiple=True, help="Only these figures; all where left out.")
@in_workspace
async def metrics(ws: Workspace, session: Session, run: str, names: tuple[str, ...]) -> None:
    """The figures of a run, step by step."""
    from backend.training.runs import run_metrics

    series = await run_metrics(ws, run, names or None)
    rows = [(name, step, value) for name, points in series.items() for step, value in points]
    session.show(
        {name: [{"step": step, "value": value} for step, value in points] for name, points in series.items()},
        table(("name", "step", "value"), rows),
    )
