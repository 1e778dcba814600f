"""The Preferences screen: two answers side by side, and one key to say which is better.

Which answer the scorer preferred is not shown. A choice is on disk before the next key is looked at; the list
keeps its order while it is worked through.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, get_args

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container

from backend.preferences.exporting import export
from backend.preferences.importing import import_pairs
from backend.preferences.reviewing import Choice, PairView, choose, ids, undo, view
from backend.preferences.running import ScorerName, generate_pairs
from backend.registry.references import resolve
from backend.store.pairs import PairState
from hafs_tui import format as fmt
from hafs_tui.actions import Need
from hafs_tui.mode_screen import ModeScreen, mode_keys
from hafs_tui.snapshots.preferences import STATES, Batch, PreferencesSnapshot, read, rows
from hafs_tui.widgets.code_view import Block, CodeView
from hafs_tui.widgets.facts import Fact, Facts
from hafs_tui.widgets.form import Answers, Field, FieldError, Form, Kind
from hafs_tui.widgets.line_list import LineList
from hafs_tui.widgets.rows import Cells, Column, RowView

SCORERS = {
    "reference": "reference: the sample's answer is right",
    "execution": "execution: how far asar and a SNES core come with it",
    "llm": "llm: a judge rates each answer",
    "human": "human: nobody yet; you choose here",
}
_ALL = ""


class PreferencesScreen(ModeScreen[PreferencesSnapshot]):
    """Pairs wait here for a person's word."""

    GROUP = "preferences"
    BINDINGS: ClassVar[list[BindingType]] = [*mode_keys("preferences")]
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012
    DEFAULT_CSS = """
    PreferencesScreen #standing { height: 2; background: $surface; padding: 0 1; }
    PreferencesScreen #pairs { height: 1fr; min-height: 4; max-height: 10; }
    PreferencesScreen #prompt { height: 1fr; min-height: 4; max-height: 9; border-top: solid $border-blurred; }
    PreferencesScreen #prompt:focus { border-top: solid $border; }
    PreferencesScreen .sides { height: 3fr; }
    PreferencesScreen.-wide .sides { layout: horizontal; }
    PreferencesScreen.-narrow .sides { layout: vertical; }
    PreferencesScreen .sides CodeView { width: 1fr; height: 1fr; border-top: solid $border-blurred; }
    PreferencesScreen .sides CodeView:focus { border-top: solid $border; }
    PreferencesScreen.-wide #right { border-left: solid $border-blurred; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._state: PairState | None = "pending"
        self._batch: str | None = None
        self._list_read = False
        self._making: dict[str, tuple[int, int]] = {}

    def body(self) -> ComposeResult:
        yield Facts(label_width=7, id="standing")
        yield LineList(
            [
                Column("", 1),
                Column("Margin", 6, "right"),
                Column("Scorer", 9),
                Column("Batch", 14),
                Column("Prompt"),
            ],
            self._rows,
            empty="No pair waits. n generates some, i imports a file, / shows others.",
            id="pairs",
        )
        yield CodeView(id="prompt")
        with Container(classes="sides"):
            yield CodeView(id="left")
            yield CodeView(id="right")

    async def _rows(self, wanted: Sequence[int]) -> dict[int, Cells]:
        return await rows(self.ws, wanted)

    async def read(self) -> PreferencesSnapshot:
        if not self._list_read or not self.pairs.row_count:
            self._list_read = True
            await self._read_list()
        return await read(self.ws)

    async def _read_list(self, *, follow: bool = True) -> None:
        found = await ids(self.ws, state=self._state, batch=self._batch)
        self.pairs.set_ids(array("q", found), follow=follow)
        if not found:
            await self._show_pair()

    def show(self, snapshot: PreferencesSnapshot) -> None:
        self.pairs.reload()
        self._show_standing()
        self.work(self._show_pair(), group="pair", exclusive=True)

    def _show_standing(self) -> None:
        snapshot = self.snapshot
        if snapshot is None:
            return
        known = self.pairs.ids
        newer = snapshot.newest_id - max(known[0], known[-1]) if known else 0
        place = f"{self.pairs.cursor + 1} of {self.pairs.row_count:,}" if known else "nothing here"
        what = f"{self._state or 'every state'}, {self._batch or 'every batch'}: {place}"
        parts = [f"{STATES[state][0]} {count:,} {state}" for state, count in snapshot.counts.items()]
        batches = [
            _in_short(one) for one in snapshot.batches if self._batch is None or one.name == self._batch
        ]
        making = [f"{name}: {done}/{wanted} candidates …" for name, (done, wanted) in self._making.items()]
        self.query_one("#standing", Facts).set_facts(
            [
                Fact("", " · ".join([what, *([f"{newer:,} newer: ^r"] if newer > 0 else []), *making])),
                Fact("", " · ".join([*parts, *batches]), "muted"),
            ]
        )

    def holds(self) -> set[Need]:
        return {Need.PAIR} if self.pairs.cursor_id is not None else set()

    @property
    def pairs(self) -> LineList:
        return self.query_one("#pairs", LineList)

    def read_everything(self) -> None:
        self._list_read = False
        super().read_everything()

    @on(RowView.Moved, "#pairs")
    def _moved(self) -> None:
        self.update_keys()
        self._show_standing()
        self.work(self._show_pair(), group="pair", exclusive=True)

    async def _show_pair(self) -> None:
        identifier = self.pairs.cursor_id
        prompt, left, right = (self.query_one(f"#{name}", CodeView) for name in ("prompt", "left", "right"))
        if identifier is None:
            for each in (prompt, left, right):
                each.set_blocks(())
            return
        shown = await view(self.ws, identifier)
        if identifier != self.pairs.cursor_id:
            return
        pair = shown.pair
        sign = STATES[pair.state][0]
        prompt.set_blocks([Block(f"{sign} {pair.state} · pair {pair.id} · {pair.source}", pair.prompt)])
        keys = self.hafs.keymap
        left.set_blocks([Block(f"Left ({keys.shown('preferences.left')}){_mark(shown, 'left')}", shown.left)])
        right.set_blocks(
            [Block(f"Right ({keys.shown('preferences.right')}){_mark(shown, 'right')}", shown.right)]
        )

    # Choices

    async def do_left(self) -> None:
        await self._choose("left")

    async def do_right(self) -> None:
        await self._choose("right")

    async def do_tie(self) -> None:
        await self._choose("tie")

    async def do_bad(self) -> None:
        await self._choose("bad")

    async def _choose(self, choice: Choice) -> None:
        identifier = self.pairs.cursor_id
        if identifier is None or await self.hafs.guarded(choose(self.ws, identifier, choice)) is None:
            return
        self.pairs.reload([identifier])
        await self._advance()

    async def do_skip(self) -> None:
        await self._advance()

    async def _advance(self) -> None:
        if self.pairs.cursor + 1 < self.pairs.row_count:
            self.pairs.cursor += 1
        else:
            # The last of the list is decided: what came in meanwhile is the next list.
            await self._read_list()
            await self._show_pair()

    async def do_undo(self) -> None:
        done = await self.hafs.guarded(undo(self.ws))
        if done is None:
            return
        if done.value is None:
            self.tell("There is no choice of yours to undo.")
            return
        identifier = done.value.pair.id
        self.pairs.reload([identifier])
        if not self.pairs.move_to(identifier):
            await self._read_list()
            self.pairs.move_to(identifier)
        await self._show_pair()

    # Lists and forms

    def do_filter(self) -> None:
        fields = (
            Field("state", "State", Kind.CHOICE, self._state or _ALL,
                  choices=[(_ALL, "every state"), *((state, state) for state in get_args(PairState))]),
            Field("batch", "Batch", Kind.CHOICE, self._batch or _ALL, choices=self._batches("every batch")),
        )  # fmt: skip

        async def apply(answers: Answers) -> None:
            await self._show_list(
                next((s for s in get_args(PairState) if s == answers.text("state")), None),
                answers.optional_text("batch"),
            )

        self.app.push_screen(Form("Show pairs", fields, apply, send="Show", enter_sends=True))

    async def do_clear(self) -> None:
        await self._show_list("pending", None)

    async def _show_list(self, state: PairState | None, batch: str | None) -> None:
        self._state, self._batch = state, batch
        await self._read_list(follow=False)
        self.read_again()

    def _batches(self, all_of_them: str) -> list[tuple[str, str]]:
        found = self.snapshot.batches if self.snapshot is not None else ()
        return [(_ALL, all_of_them), *((one.name, f"{one.name} ({one.pairs} pairs)") for one in found)]

    def do_generate(self) -> None:
        snapshot = self.snapshot
        versions = [f"{one.name}@{one.version}" for one in snapshot.datasets] if snapshot is not None else []
        serving = (
            [one.name for one in snapshot.deployments if one.state == "serving"]
            if snapshot is not None
            else []
        )
        fields = (
            Field("model", "Model", default=f"deployment:{serving[0]}" if serving else "",
                  help="What answers: deployment:NAME, gguf:NAME, ollama:TAG or api:PROVIDER/MODEL."),
            Field("dataset", "Prompts of", Kind.CHOICE, versions[0] if versions else _ALL,
                  choices=[(_ALL, "every approved sample"), *((one, f"{one}, train") for one in versions)]),
            Field("num_samples", "Prompts", Kind.INT, 40, minimum=1),
            Field("candidates", "Candidates for each", Kind.INT, 4, minimum=2, maximum=64),
            Field("scorer", "Scorer", Kind.CHOICE, "reference", choices=list(SCORERS.items())),
            Field("judge", "Judge", required=False, help="For the scorer llm: api:PROVIDER/MODEL."),
            Field("min_margin", "Margin at least", Kind.FLOAT, 0.1, minimum=0, maximum=1,
                  help="Of the best against the worst candidate; closer ones make no pair."),
            Field("max_tokens", "Tokens of an answer", Kind.INT, 512, minimum=1),
            Field("seed", "Seed", Kind.INT, 0),
            Field("batch", "Batch", required=False, help="The same goes on. Empty: made of model, data and scorer."),
        )  # fmt: skip

        async def start(answers: Answers) -> str:
            scorer = next(name for name in get_args(ScorerName) if name == answers.text("scorer"))
            if scorer == "llm" and not answers.text("judge"):
                raise FieldError("judge", "the scorer llm needs one")
            await resolve(self.ws, answers.text("model"))
            label = answers.text("batch") or answers.text("model")

            async def make() -> None:
                try:
                    made = await generate_pairs(
                        self.ws, model=answers.text("model"), dataset=answers.optional_text("dataset"),
                        num_samples=answers.integer("num_samples"), scorer=scorer, judge=answers.optional_text("judge"),
                        candidates_per_prompt=answers.integer("candidates"), min_margin=answers.number("min_margin"),
                        max_tokens=answers.integer("max_tokens"), seed=answers.integer("seed"),
                        batch=answers.optional_text("batch"),
                        on_progress=lambda done, wanted: self._making.update({label: (done, wanted)}),
                    )  # fmt: skip
                finally:
                    self._making.pop(label, None)
                pairing = made.pairing
                self.tell(f"{pairing.batch}: {pairing.pairs} pairs of {made.generation.candidates} candidates, "
                          f"{pairing.ties} ties, {pairing.near_equal} too close")  # fmt: skip

            self._making[label] = (0, answers.integer("num_samples") * answers.integer("candidates"))
            if not self.hafs.background.start(f"candidates of {label}", make()):
                raise FieldError("batch", "this app makes it already")
            return f"{label} is being asked"

        self.app.push_screen(Form("Generate pairs", fields, start), self._told)

    def do_export(self) -> None:
        fields = (
            Field("path", "File", default=str(self.ws.training / "preferences.jsonl")),
            Field("batch", "Batch", Kind.CHOICE, self._batch or _ALL, choices=self._batches("every batch")),
            Field("pending", "Pending ones too", Kind.BOOL, False, help="Also what only the scorer has said."),
            Field("conversational", "As messages", Kind.BOOL, False),
        )  # fmt: skip

        async def write(answers: Answers) -> str:
            count = await export(
                self.ws, _file(answers), batch=answers.optional_text("batch"), pending=answers.flag("pending"),
                conversational=answers.flag("conversational"),
            )  # fmt: skip
            return f"{count:,} pairs in {answers.text('path')}"

        self.app.push_screen(Form("Export pairs", fields, write, send="Export"), self._told)

    def do_import(self) -> None:
        fields = (
            Field("path", "File", help="JSON lines of prompt, chosen, rejected, perhaps source."),
            Field("batch", "Batch", required=False, help="Empty: the file's name."),
        )

        async def bring(answers: Answers) -> str:
            report = await import_pairs(self.ws, _file(answers), batch=answers.optional_text("batch"))
            bad = f"; line {report.problems[0].line}: {report.problems[0].reason}" if report.problems else ""
            return f"{report.inserted:,} new, {report.known:,} known, {report.bad:,} bad of {report.read:,} rows{bad}"

        self.app.push_screen(Form("Import pairs", fields, bring, send="Import"), self._told)

    def _told(self, message: str | None) -> None:
        if message is not None:
            self.tell(message)
            self.read_again()


def _in_short(batch: Batch) -> str:
    of = f" of {batch.candidates:,} candidates" if batch.candidates else ""
    return f"{batch.name}: {batch.pairs:,} pairs{of}, margin {fmt.number(batch.margin, 2)}"


def _file(answers: Answers) -> Path:
    return Path(answers.text("path")).expanduser()


def _mark(shown: PairView, side: Literal["left", "right"]) -> str:
    """What was decided already is no secret any more."""
    if shown.pair.state != "decided":
        return ""
    chosen = "left" if shown.left_is == "chosen" else "right"
    return " ✓ chosen" if chosen == side else ""
