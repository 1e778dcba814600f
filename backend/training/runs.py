"""Runs: training jobs, checked here before any host is asked, launched, and resumed.

A run keeps its name and folder over all the jobs that work for it; a resume is a new job of the same run.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.contract.job import JobSpec
from backend.contract.options import from_values, to_values
from backend.contract.recipe import Recipe
from backend.hosts.catalog import QUANTISATION, open_named_host, report_of
from backend.hosts.launching import launch_worker
from backend.hosts.placing import OnCopy, PlacedModel, place_file, place_folder, place_model
from backend.registry.catalog import folder_name, safe_name
from backend.registry.references import ResolvedModel, weights_of
from backend.settings import Workspace
from backend.store import Queries, Transaction, datasets, jobs, memory_plans, runs
from backend.store.datasets import DatasetVersion
from backend.store.jobs import Job
from backend.store.memory_plans import Peak
from backend.store.runs import Checkpoint, Run, RunKind
from backend.training.data import RunData, TrainingRefused, check, decided_pairs, find_dataset
from backend.training.fitting import fit_or_refuse, recipe_of
from backend.training.recipes import RECIPES
from remote import Host, Probe

__all__ = ["RunDetails", "TrainingRefused", "list_runs", "resume_run", "run_metrics", "show_run", "start_dpo",
           "start_sft"]  # fmt: skip

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")
_HERE = "(chosen at launch)"  # stands for the places on the host while a recipe is checked without one


@dataclass(frozen=True, slots=True)
class RunDetails:
    """A run with what belongs to it. `jobs` are all that worked for it, oldest first; `memory` is what it was
    predicted to take of its card, and took (None where it was launched without a plan)."""

    run: Run
    jobs: list[Job]
    checkpoints: list[Checkpoint]
    dataset: DatasetVersion | None
    memory: Peak | None = None

    @property
    def job(self) -> Job | None:
        """The one that works for it now, or did last."""
        return self.jobs[-1] if self.jobs else None


async def start_sft(
    ws: Workspace,
    host: str,
    values: Mapping[str, Any],
    *,
    dataset: str,
    name: str | None = None,
    on_copy: OnCopy | None = None,
    allow_oversize: bool = False,
) -> Run:
    """Launch supervised fine-tuning and return at once; `hosts.mirror.wait_for(ws, run.job_id)` waits.

    `values` are fields of SftRecipe; `base_model` is any reference to weights, `output_dir` a folder under the
    host's root (left out: `runs/<name>`). `dataset` is NAME[@version] or a path. `allow_oversize` launches it
    even where the host's card is too small by the plan.

    Raises ParameterError, DoesNotFit (a TrainingRefused with the recipe that would fit), TrainingRefused,
    ModelReferenceError, SettingsError, HostError.
    """
    _check_values("sft", {**values, "dataset": _HERE})
    data = await find_dataset(ws, dataset)
    await asyncio.to_thread(check, data, "sft")
    model = await weights_of(ws, str(values["base_model"]))
    if model.kind == "adapter":
        raise TrainingRefused(
            f"{values['base_model']} is an adapter; supervised fine-tuning starts from a whole model. "
            "Merge it first: hafs-tui deploy hf, or name its base"
        )
    return await _start(ws, host, "sft", values, data, model, name, on_copy, allow_oversize)


async def start_dpo(
    ws: Workspace,
    host: str,
    values: Mapping[str, Any],
    *,
    sft_model: str,
    preference_data: str | Path | None = None,
    batch: str | None = None,
    name: str | None = None,
    on_copy: OnCopy | None = None,
    allow_oversize: bool = False,
) -> Run:
    """Launch preference fine-tuning and return at once.

    `sft_model` is a reference (an Ollama tag is followed to the weights that it was made from);
    `preference_data` a file or folder of pairs, None for the decided pairs of the workspace (of `batch`).

    Raises like `start_sft`.
    """
    _check_values("dpo", {**values, "sft_model": sft_model, "preference_data": _HERE})
    data = (
        await decided_pairs(ws, batch)
        if preference_data is None
        else await find_dataset(ws, str(preference_data))
    )
    await asyncio.to_thread(check, data, "dpo")
    model = await weights_of(ws, sft_model)
    return await _start(ws, host, "dpo", values, data, model, name, on_copy, allow_oversize)


async def resume_run(ws: Workspace, name: str) -> Run:
    """Launch a new job that goes on from the run's newest complete checkpoint, or from its start.

    Raises TrainingRefused while it still runs, SettingsError, HostError.
    """
    run = await _run(ws, name)
    if run.state not in jobs.ENDED:
        raise TrainingRefused(
            f"run {name} is {run.state}: it needs no resuming. Cancel its job first: {run.job_id}"
        )
    if run.state == "done":
        raise TrainingRefused(f"run {name} is done; start a new run from it with run:{name}")

    async def point(transaction: Transaction, job_id: str) -> None:
        # Two trainers in one folder would ruin each other: whoever asked first has it.
        now = await runs.by_name(transaction, name)
        if now is None or now.job_id != run.job_id:
            raise TrainingRefused(f"run {name} was resumed meanwhile; follow it: {now.job_id if now else ''}")
        await runs.set_job(transaction, run.id, job_id)

    async with open_named_host(ws, run.host) as host:
        await ready(host)
        spec = JobSpec(run.kind, from_values(RECIPES[run.kind], run.recipe), resume=True)
        await launch_worker(ws, host, spec, with_row=point)
    return await _run(ws, name)


async def list_runs(ws: Workspace) -> list[Run]:
    """Newest first."""
    return await runs.every(ws.db)


async def show_run(ws: Workspace, name: str) -> RunDetails:
    """A run with its jobs, checkpoints and dataset. Raises TrainingRefused for an unknown name."""
    run = await _run(ws, name)
    dataset = await datasets.by_id(ws.db, run.dataset_id) if run.dataset_id is not None else None
    planned = await memory_plans.peaks(ws.db, run.host)
    memory = next((peak for peak in planned if peak.run == run.name), None)
    return RunDetails(run, await _jobs_of(ws, run), await runs.checkpoints(ws.db, run.id), dataset, memory)


async def run_metrics(
    ws: Workspace, name: str, names: Sequence[str] | None = None
) -> dict[str, list[tuple[int, float | None]]]:
    """Each figure of a run as [(step, value)], over all its jobs: a step done again has its last value.

    Raises TrainingRefused for an unknown name.
    """
    figures: dict[str, dict[int, float | None]] = {}
    for job in await _jobs_of(ws, await _run(ws, name)):
        for metric in await jobs.metric_names(ws.db, job.id):
            if names is None or metric in names:
                figures.setdefault(metric, {}).update(await jobs.metric(ws.db, job.id, metric))
    return {metric: sorted(steps.items()) for metric, steps in figures.items()}


async def _start(
    ws: Workspace,
    host_name: str,
    kind: RunKind,
    values: Mapping[str, Any],
    data: RunData,
    model: ResolvedModel,
    name: str | None,
    on_copy: OnCopy | None,
    allow_oversize: bool,
) -> Run:
    output = str(values.get("output_dir") or "")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = name or safe_name(folder_name(output) if output else f"{kind}-{data.name}-{stamp}")
    if not _NAME.fullmatch(name):
        raise TrainingRefused(f"{name!r} cannot name a run: use letters, digits, '.', '_' and '-'")
    await _refuse_taken(ws.db, name)
    async with open_named_host(ws, host_name) as host:
        wanted = recipe_of(kind, values)
        probe = await ready(host, wanted)
        plan = await fit_or_refuse(ws, host, probe, wanted, model, allow=allow_oversize)
        places = await _place(ws, host, probe, kind, data, model, on_copy)
        places["output_dir"] = _under(probe.root, output or f"runs/{name}")
        recipe = from_values(RECIPES[kind], {**values, **places})

        async def insert(transaction: Transaction, job_id: str) -> None:
            await _refuse_taken(transaction, name)  # by another launch while this one copied
            run_id = await runs.insert(
                transaction,
                name=name,
                kind=kind,
                job_id=job_id,
                host=host_name,
                base_model=model.reference if kind == "sft" else (await _base_model(transaction, model)),
                parent=model.reference if kind == "dpo" else None,
                dataset_id=data.dataset_id,
                recipe=json.dumps(to_values(recipe)),
                output_dir=recipe.output_dir,
            )
            if plan is not None:
                await memory_plans.insert(transaction, run_id, plan.predicted / 2**20, plan.card / 2**20)

        await launch_worker(ws, host, JobSpec(kind, recipe), with_row=insert)
    return await _run(ws, name)


async def _refuse_taken(queries: Queries, name: str) -> None:
    if await runs.by_name(queries, name) is not None:
        raise TrainingRefused(f"a run named {name} is there already; give another name, or resume that one")


async def _place(
    ws: Workspace,
    host: Host,
    probe: Probe,
    kind: RunKind,
    data: RunData,
    model: ResolvedModel,
    on_copy: OnCopy | None,
) -> dict[str, Any]:
    """Model and data brought to the host: the recipe's fields that say where they lie there."""
    placed: PlacedModel = await place_model(ws, host, probe, model, on_copy)
    if data.path.is_dir():
        lies = await place_folder(host, data.path, data.target, on_copy)
    else:
        lies = await place_file(host, data.path, data.target, data.path.name, on_copy)
    if kind == "sft":
        return {"base_model": placed.location, "dataset": lies}
    return {"sft_model": placed.location, "base_model": placed.base, "preference_data": lies}


async def ready(host: Host, recipe: Recipe | None = None) -> Probe:
    """The host's probe, once it is known that it can train, as the recipe wants it where one is given.

    Raises TrainingRefused, HostError.
    """
    report = await report_of(host)
    if report.missing:
        raise TrainingRefused(f"host {host.name} has no {', '.join(report.missing)}.\n{report.remedy}")
    if recipe is not None and _quantises(recipe) and report.libraries.get(QUANTISATION) is None:
        raise TrainingRefused(
            f"host {host.name} has no {QUANTISATION}, which load_in_4bit and 8-bit optimizers need.\n"
            f"{report.bring([QUANTISATION])}"
        )
    return report.probe


def _quantises(recipe: Recipe) -> bool:
    return recipe.load_in_4bit or recipe.optim.endswith("8bit")


def _check_values(kind: RunKind, values: Mapping[str, Any]) -> Recipe:
    """Every problem of a recipe before any host is asked. Raises ParameterError."""
    return from_values(RECIPES[kind], {"output_dir": _HERE, **values})


async def _base_model(transaction: Transaction, model: ResolvedModel) -> str:
    """The base below a model, as the run that made it names it."""
    base = await transaction.fetch_value(
        "SELECT runs.base_model FROM models JOIN runs ON runs.id = models.run_id "
        "WHERE models.location = ? AND models.host = ?",
        (model.location, model.host),
    )
    return str(base or model.base or model.reference)


async def _jobs_of(ws: Workspace, run: Run) -> list[Job]:
    return await ws.db.rows(
        Job,
        "SELECT * FROM jobs WHERE host = ? AND kind = ? AND json_extract(spec, '$.parameters.output_dir') = ? "
        "ORDER BY created_at",
        (run.host, run.kind, run.output_dir),
    )


async def _run(ws: Workspace, name: str) -> Run:
    run = await runs.by_name(ws.db, name)
    if run is None:
        known = ", ".join(one.name for one in await runs.every(ws.db)) or "none yet"
        raise TrainingRefused(f"no run named {name}; there are: {known}")
    return run


def _under(root: str, path: str) -> str:
    """A path of the host: as it is where it is absolute, else under the root."""
    absolute = path.startswith(("/", "~", "\\")) or path[1:2] == ":"
    return path if absolute else f"{root}/{path}"
