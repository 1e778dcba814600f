"""What the Training screen shows: every run, and of the selected one its figures, recipe and words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from backend.contract.events import Failed, Started, Warned
from backend.settings import Workspace
from backend.store import datasets, jobs, runs, samples
from backend.store.datasets import DatasetVersion
from backend.store.runs import Run, RunKind
from backend.training.runs import RunDetails, run_metrics, show_run
from hafs_tui.widgets.chart import Series


@dataclass(frozen=True, slots=True)
class Figure:
    """One chart: metrics of a run that are drawn together, with their labels; `kinds` are the runs that have it."""

    title: str
    metrics: tuple[tuple[str, str], ...]
    kinds: tuple[RunKind, ...] = ("sft", "dpo")


FIGURES = (
    Figure("loss", (("loss", "loss"), ("eval_loss", "eval loss"))),
    Figure(
        "reward margin",
        (("rewards_margin", "reward margin"), ("eval_rewards_margin", "eval reward margin")),
        ("dpo",),
    ),
    Figure(
        "reward accuracy",
        (("rewards_accuracy", "reward accuracy"), ("eval_rewards_accuracy", "eval reward accuracy")),
        ("dpo",),
    ),
    Figure(
        "log-probabilities",
        (("logps_chosen", "logps chosen"), ("logps_rejected", "logps rejected")),
        ("dpo",),
    ),
    Figure("learning rate", (("learning_rate", "learning rate"),)),
    Figure("gradient norm", (("grad_norm", "gradient norm"),)),
    Figure("tokens/s", (("tokens_per_second", "tokens/s"),)),
    Figure("token accuracy", (("token_accuracy", "token accuracy"),), ("sft",)),
    Figure("peak memory", (("peak_memory_mib", "peak memory MiB"),)),
)


def figures_of(kind: RunKind) -> tuple[Figure, ...]:
    """The charts that a run of this kind has."""
    return tuple(figure for figure in FIGURES if kind in figure.kinds)


@dataclass(frozen=True, slots=True)
class Selected:
    """The selected run: its rows, one figure as series (NaN where a value was not finite), and what its
    worker told besides figures."""

    details: RunDetails
    figure: Figure
    series: tuple[Series, ...]
    started: dict[str, Any]
    warnings: tuple[str, ...]
    failure: str


@dataclass(frozen=True, slots=True)
class TrainingSnapshot:
    """`approved` counts samples that a dataset can be built from, `decided` pairs that DPO can use."""

    runs: tuple[Run, ...]
    selected: Selected | None
    datasets: tuple[DatasetVersion, ...]
    approved: int
    decided: int


async def read(ws: Workspace, selected: str | None, figure: str) -> TrainingSnapshot:
    """Everything that the screen shows; `selected` is a run's name (None: the newest), `figure` a title."""
    found = await runs.every(ws.db)
    chosen = next((run for run in found if run.name == selected), found[0] if found else None)
    decided = await ws.db.fetch_value("SELECT count(*) FROM pairs WHERE state = 'decided'")
    return TrainingSnapshot(
        runs=tuple(found),
        selected=await _selected(ws, chosen, figure) if chosen is not None else None,
        datasets=tuple(await datasets.every(ws.db)),
        approved=(await samples.count_by_state(ws.db)).get("approved", 0),
        decided=int(decided),
    )


async def _selected(ws: Workspace, run: Run, title: str) -> Selected:
    figures = figures_of(run.kind)
    figure = next((one for one in figures if one.title == title), figures[0])
    details = await show_run(ws, run.name)
    metrics = await run_metrics(ws, run.name, [name for name, _ in figure.metrics])
    series = tuple(
        Series(
            label, tuple((float(step), math.nan if value is None else value) for step, value in metrics[name])
        )
        for name, label in figure.metrics
        if name in metrics
    )
    started: dict[str, Any] = {}
    warnings: list[str] = []
    failure = ""
    if run.job_id is not None:
        for event in await jobs.events(ws.db, run.job_id, kind=Started.name):
            started = event.payload
        for event in await jobs.events(ws.db, run.job_id, kind=Warned.name):
            warnings.append(_words(event.payload))
        for event in await jobs.events(ws.db, run.job_id, kind=Failed.name):
            failure = _words(event.payload)
    return Selected(details, figure, series, started, tuple(warnings), failure)


def _words(payload: dict[str, Any]) -> str:
    return f"{payload.get('code', '')}: {payload.get('message', '')} {payload.get('remedy', '')}".strip()
