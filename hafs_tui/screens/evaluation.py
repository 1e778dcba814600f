"""The Evaluation screen: what each model can do, how sure that is, and which of two is better."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal

from backend.evaluation.comparing import compare_models
from backend.evaluation.comparison import BenchmarkScore
from backend.evaluation.running import find_benchmark, list_benchmarks, run_evaluation
from backend.hosts.catalog import list_hosts
from backend.registry.references import resolve
from backend.store.evaluations import ComparisonRow, OutcomeRow
from hafs_tui import format as fmt
from hafs_tui.actions import Need
from hafs_tui.mode_screen import ModeScreen, mode_keys
from hafs_tui.screens.overview import VERDICTS
from hafs_tui.screens.report import Report
from hafs_tui.snapshots.evaluation import EvaluationReader, EvaluationSnapshot, Summarised, report_text
from hafs_tui.widgets.code_view import Block, CodeView
from hafs_tui.widgets.form import Answers, Field, FieldError, Form, Kind
from hafs_tui.widgets.rows import RowView, Tone
from hafs_tui.widgets.table import Cell, Column, Row, Table

STATE_TONES: Mapping[str, Tone] = {
    "running": "accent", "done": "good", "failed": "bad", "cancelled": "muted"
}  # fmt: skip
OUTCOMES: Mapping[str, tuple[str, Tone]] = {"correct": ("✓", "good"), "not_run": ("-", "muted")}


class EvaluationScreen(ModeScreen[EvaluationSnapshot]):
    """An evaluation goes on in the background of this app; its rows come as the answers do."""

    GROUP = "evaluation"
    BINDINGS: ClassVar[list[BindingType]] = [*mode_keys("evaluation")]
    DEFAULT_CSS = """
    EvaluationScreen #evaluations { height: 1fr; min-height: 5; max-height: 12; }
    EvaluationScreen #comparisons { height: 1fr; min-height: 4; max-height: 8; }
    EvaluationScreen .bottom { height: 2fr; min-height: 9; }
    EvaluationScreen #items { width: 32; height: 1fr; }
    EvaluationScreen #item { width: 1fr; border-left: solid $border-blurred; }
    EvaluationScreen #item:focus { border-left: solid $border; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._reader = EvaluationReader()

    def body(self) -> ComposeResult:
        yield Table(
            [
                Column("#", 3, "right"),
                Column("Model"),
                Column("State", 9),
                Column("Benchmark", 12),
                Column("Passed", 9, "right"),
                Column("Rate (95 %)", 16),
                Column("Perplexity", 10, "right"),
            ],
            empty="No evaluation yet. n runs one.",
            id="evaluations",
        )
        yield Table(
            [
                Column("Verdict", 13),
                Column("Fine-tuned against baseline"),
                Column("Points (95 %)", 22),
                Column("p", 5),
                Column("Needs", 8),
            ],
            empty="No comparison yet. c compares two evaluations.",
            id="comparisons",
        )
        with Horizontal(classes="bottom"):
            yield Table([Column("", 1), Column("Item"), Column("Outcome", 12)], empty="No item.", id="items")
            yield CodeView(id="item")

    async def read(self) -> EvaluationSnapshot:
        return await self._reader.read(self.ws, self._evaluation_id)

    def show(self, snapshot: EvaluationSnapshot) -> None:
        self._table("#evaluations").set_rows([row for one in snapshot.evaluations for row in _rows(one)])
        self._table("#comparisons").set_rows([_comparison_row(one, snapshot) for one in snapshot.comparisons])
        self._table("#items").set_rows([_item_row(item) for item in snapshot.items])
        self._show_item()

    def _table(self, selector: str) -> Table:
        return self.query_one(selector, Table)

    @property
    def _evaluation_id(self) -> int | None:
        """The id of the evaluation under the cursor."""
        key = self._table("#evaluations").cursor_key
        return key[0] if isinstance(key, tuple) else None

    @property
    def comparison(self) -> ComparisonRow | None:
        """The comparison under the cursor."""
        key = self._table("#comparisons").cursor_key
        found = self.snapshot.comparisons if self.snapshot is not None else ()
        return next((one for one in found if one.id == key), None)

    def holds(self) -> set[Need]:
        holds: set[Need] = set()
        if self.snapshot is None:
            return holds
        if self._evaluation_id is not None:
            holds.add(Need.EVALUATION)
        if sum(1 for one in self.snapshot.evaluations if one.row.state == "done") >= 2:
            holds.add(Need.TWO_EVALUATIONS)
        if self.comparison is not None:
            holds.add(Need.COMPARISON)
        return holds

    @on(RowView.Moved, "#evaluations")
    def _moved(self) -> None:
        self.update_keys()
        if self.snapshot is not None and self._evaluation_id != self.snapshot.selected:
            self.read_again()

    @on(RowView.Moved, "#comparisons")
    def _comparison_moved(self) -> None:
        self.update_keys()

    @on(RowView.Moved, "#items")
    def _show_item(self) -> None:
        items = self.snapshot.items if self.snapshot is not None else ()
        key = self._table("#items").cursor_key
        item = next((one for one in items if (one.benchmark, one.item_id) == key), None)
        evaluation = next((one for one in self._summarised() if one.row.id == self._evaluation_id), None)
        blocks = (
            [Block("✗ failed", evaluation.row.error, code=False)]
            if evaluation and evaluation.row.error
            else []
        )
        if item is not None:
            blocks += _item_blocks(item)
        elif evaluation is not None:
            blocks += _summary_blocks(evaluation)
        self.query_one("#item", CodeView).set_blocks(blocks)

    def _summarised(self) -> tuple[Summarised, ...]:
        return self.snapshot.evaluations if self.snapshot is not None else ()

    # Actions

    def do_run(self) -> None:
        self.work(self._benchmarks_and_hosts(), lambda found: self._ask_run(*found))

    async def _benchmarks_and_hosts(self) -> tuple[list[str], list[str]]:
        benchmarks = await asyncio.to_thread(list_benchmarks, self.ws)
        return list(benchmarks), list(await asyncio.to_thread(list_hosts, self.ws))

    def _ask_run(self, benchmarks: list[str], hosts: list[str]) -> None:
        versions = self.snapshot.datasets if self.snapshot is not None else ()
        heldout = [("", "none: no perplexity")]
        heldout += [(f"{v.path}/{part}.jsonl", f"{v.name}@{v.version} {part} ({count} rows)")
                    for v in versions for part, count in (("val", v.val), ("test", v.test)) if count]  # fmt: skip
        model = next((one.row.model for one in self._summarised() if one.row.id == self._evaluation_id), "")
        fields = (
            Field("model", "Model", default=model, help="run:NAME, a registered name, hub:OWNER/NAME, path:FOLDER, "
                  "deployment:NAME or api:PROVIDER/MODEL."),
            Field("benchmarks", "Benchmarks", Kind.CHOICES, tuple(benchmarks[:1]), required=False,
                  choices=[(name, name) for name in benchmarks]),
            Field("file", "Another benchmark", required=False, help="A JSONL file of items."),
            Field("heldout", "Held-out rows", Kind.CHOICE, "", choices=heldout, help="For perplexity."),
            Field("host", "Host", Kind.CHOICE, "local", choices=[(name, name) for name in hosts],
                  help="Where weights are loaded."),
            Field("max_new_tokens", "Tokens of an answer", Kind.INT, 64, minimum=1, maximum=8192),
            Field("batch_size", "Answers at once", Kind.INT, 8, minimum=1),
        )  # fmt: skip

        async def start(answers: Answers) -> str:
            names = [*answers.several("benchmarks"), *filter(None, [answers.text("file")])]
            if not names and not answers.text("heldout"):
                raise FieldError("benchmarks", "choose a benchmark (space), or held-out rows")
            for name in names:
                await asyncio.to_thread(find_benchmark, self.ws, name)
            resolved = await resolve(self.ws, answers.text("model"))
            job = run_evaluation(
                self.ws, resolved.reference, names, heldout=answers.optional_text("heldout"), host=answers.text("host"),
                max_new_tokens=answers.integer("max_new_tokens"), batch_size=answers.integer("batch_size"),
            )  # fmt: skip
            if not self.hafs.background.start(f"evaluation of {resolved.reference}", job):
                raise FieldError("model", "this app evaluates it already")
            return f"{resolved.reference} is being evaluated"

        self.app.push_screen(Form("Run an evaluation", fields, start), self._told)

    def do_compare(self) -> None:
        done = [one for one in self._summarised() if one.row.state == "done"]
        choices = [(str(one.row.id), f"{one.row.id}: {one.row.model} ({_in_short(one)})") for one in done]
        fields = (
            Field("baseline", "Baseline", Kind.CHOICE, choices[1][0], choices=choices),
            Field("finetuned", "Fine-tuned", Kind.CHOICE, choices[0][0], choices=choices),
            Field("report", "Report", required=False, help="A Markdown file; empty: in the workspace."),
        )

        async def start(answers: Answers) -> str:
            if answers.text("baseline") == answers.text("finetuned"):
                raise FieldError("finetuned", "choose two different evaluations")
            _, row = await compare_models(
                self.ws,
                answers.text("baseline"),
                answers.text("finetuned"),
                _file(answers.text("report")),
            )
            return f"{VERDICTS[row.verdict][0]}: {_points(row)}"

        self.app.push_screen(Form("Compare two evaluations", fields, start, send="Compare"), self._told)

    def do_report(self) -> None:
        row = self.comparison
        if row is not None:
            self.work(
                report_text(self.ws, row),
                lambda text: self.app.push_screen(Report(row.report or "Report", text)),
            )

    def _told(self, message: str | None) -> None:
        if message is not None:
            self.tell(message)
            self.read_again()


def _file(path: str) -> Path | None:
    return Path(path).expanduser() if path else None


def _rows(one: Summarised) -> list[Row]:
    """A row for each benchmark of an evaluation, at least one."""
    head = (Cell(str(one.row.id), "muted"), Cell(one.row.model, "strong"),
            Cell(one.row.state, STATE_TONES.get(one.row.state, "")))  # fmt: skip
    # Over whole rows the prompts dominate: where the answers alone were measured, they are what to look at.
    perplexity = one.summary.perplexity
    shown = perplexity.word_rolling if perplexity.completion is None else perplexity.completion
    last = Cell(fmt.number(shown), "muted")
    if not one.summary.benchmarks:
        empty = (Cell(", ".join(one.row.benchmarks), "muted"), Cell("-"), Cell("-"))
        return [Row((one.row.id, ""), (*head, *empty, last))]
    return [
        Row((one.row.id, score.name), (*head, Cell(score.name), *_score_cells(score), last))
        for score in one.summary.benchmarks
    ]


def _score_cells(score: BenchmarkScore) -> tuple[Cell, ...]:
    low, high = score.interval.low, score.interval.high
    rate = fmt.percent(fmt.of(score.passed, score.items))
    return Cell(f"{score.passed}/{score.items}"), Cell(f"{rate:>5} ({100 * low:.0f} to {100 * high:.0f})")


def _comparison_row(row: ComparisonRow, snapshot: EvaluationSnapshot) -> Row:
    words, tone = VERDICTS[row.verdict]
    both = f"{snapshot.model_of(row.finetuned)} against {snapshot.model_of(row.baseline)}"
    return Row(
        row.id,
        (
            Cell(words, tone),
            Cell(f"{both} (#{row.finetuned}, #{row.baseline})"),
            Cell(_points(row)),
            Cell(f"{row.p_value:.3f}", "muted"),
            Cell(f"{row.items_needed} more" if row.items_needed else ""),
        ),
    )


def _points(row: ComparisonRow) -> str:
    return f"{100 * row.difference:+.1f} ({100 * row.low:+.1f} to {100 * row.high:+.1f})"


def _item_row(item: OutcomeRow) -> Row:
    sign, tone = OUTCOMES.get(item.outcome, ("✗", "bad"))
    return Row(
        (item.benchmark, item.item_id), (Cell(sign, tone), Cell(item.item_id), Cell(item.outcome, tone))
    )


def _item_blocks(item: OutcomeRow) -> list[Block]:
    head = f"{item.outcome} · {item.benchmark} {item.item_id} · {item.family} {item.category}"
    blocks = [Block(head, item.prompt), Block("Answer", item.answer)]
    if item.reference:
        blocks.append(Block("Reference", item.reference))
    if item.detail:
        blocks.append(Block("Why", item.detail, code=False))
    return blocks


def _summary_blocks(one: Summarised) -> list[Block]:
    lines = [f"{name}: {value}" for name, value in one.summary.conditions.items()]
    perplexity = one.summary.perplexity
    lines += [f"perplexity: {perplexity.reason}"] if perplexity.reason else []
    for name, value in (
        ("of the answers' tokens", perplexity.completion),
        ("of words, rolling", perplexity.word_rolling),
        ("of bytes, rolling", perplexity.byte_rolling),
        ("of words, sliding", perplexity.word_stride),
    ):
        lines += [f"perplexity {name}: {fmt.number(value)}"] if value is not None else []
    return [
        Block(f"Evaluation {one.row.id}", "\n".join([*lines, *one.row.notes]) or "No answer yet.", code=False)
    ]


def _in_short(one: Summarised) -> str:
    return (
        ", ".join(f"{score.name} {score.passed}/{score.items}" for score in one.summary.benchmarks)
        or "perplexity"
    )
