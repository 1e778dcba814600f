"""The Review screen: a queue of samples beside the one in hand, and one key for each decision.

A decision is on disk before the next key is looked at, so a key always means the sample that was shown. The
queue keeps its order while it is worked through; what comes in meanwhile waits for the next queue.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, get_args

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal

from backend.review import bulk, deciding, guidelines, queues
from backend.review.card import Card, cards
from backend.review.queues import ORDERS, Order
from backend.store import campaigns
from backend.store.samples import Filter, SampleState
from hafs_tui import format as fmt
from hafs_tui.actions import Need
from hafs_tui.mode_screen import ModeScreen, mode_keys
from hafs_tui.outside import edit_outside
from hafs_tui.screens.report import Report
from hafs_tui.snapshots.card import card_blocks, describe
from hafs_tui.snapshots.review import STATES, ReviewSnapshot, read, rows, scored
from hafs_tui.widgets.choice import Choice
from hafs_tui.widgets.code_view import Block, CodeView
from hafs_tui.widgets.confirm import Confirm
from hafs_tui.widgets.facts import Fact, Facts
from hafs_tui.widgets.form import Answers, Field, Form, Kind
from hafs_tui.widgets.line_list import LineList
from hafs_tui.widgets.rows import Cells, Column, RowView

PENDING = Filter(states=("pending",))
# Samples that are there at once when a queue is opened, and cards that are fetched before they are asked for.
_FIRST = 200
_AHEAD = 4
_CARDS = 64
RATINGS = (
    ("1", "useless"),
    ("2", "mostly wrong"),
    ("3", "usable after an edit"),
    ("4", "good"),
    ("5", "perfect"),
)


def _columns(*, scored: bool) -> tuple[Column, ...]:
    """A queue in which nothing has a score gives its room to the instruction."""
    score = (Column("Score", 5, "right"),) if scored else ()
    return (Column("", 1), *score, Column("Domain", 8), Column("Instruction"))


class ReviewScreen(ModeScreen[ReviewSnapshot]):
    """Approve, reject, edit, skip, flag, undo: by keyboard, one sample at a time."""

    GROUP = "review"
    BINDINGS: ClassVar[list[BindingType]] = [*mode_keys("review")]
    DEFAULT_CSS = """
    ReviewScreen #standing { height: 2; background: $surface; padding: 0 1; }
    ReviewScreen #queue { width: 34%; min-width: 34; }
    ReviewScreen #card { width: 1fr; border-left: solid $border-blurred; }
    ReviewScreen #card:focus { border-left: solid $border; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.filters = PENDING
        self.order: Order = "newest"
        self._since = time.time()
        self._cards: OrderedDict[int, Card] = OrderedDict()
        self._queue_read = False

    def body(self) -> ComposeResult:
        yield Facts(label_width=7, id="standing")
        with Horizontal():
            yield LineList(
                _columns(scored=False),
                self._rows,
                empty="No sample here.",
                id="queue",
            )
            yield CodeView(id="card")

    async def _rows(self, ids: Sequence[int]) -> dict[int, Cells]:
        return await rows(self.ws, ids, scored=len(self.queue.columns) == len(_columns(scored=True)))

    async def read(self) -> ReviewSnapshot:
        columns = _columns(scored=await scored(self.ws))
        if columns != self.queue.columns:
            self.queue.set_columns(columns)
        if not self._queue_read or not self.queue.row_count:
            self._queue_read = True
            await self._read_queue()
        return await read(self.ws, self.filters, self._since)

    async def _read_queue(self, *, follow: bool = True) -> None:
        # The first samples are there at once, however long the rest takes.
        first = await queues.first(self.ws, self.filters, self.order, limit=_FIRST)
        if first:
            self.queue.set_ids(first, follow=follow)
            await self._fetch_cards()
            if len(first) < _FIRST and self.order != "uncertain":
                return
        found = await queues.ids(self.ws, self.filters, self.order, seed=int(self._since))
        # Meanwhile a person may have gone on: the cursor stays on its sample.
        self.queue.set_ids(found, follow=follow or bool(first))
        await self._fetch_cards()

    def show(self, snapshot: ReviewSnapshot) -> None:
        self.queue.reload()
        self.query_one("#standing", Facts).set_facts(self._standing(snapshot))
        self.work(self._fetch_cards(again=True), group="card", exclusive=True)

    def _standing(self, snapshot: ReviewSnapshot) -> list[Fact]:
        progress = snapshot.progress
        parts = [f"{STATES[state][0]} {count:,} {state}" for state, count in snapshot.counts.items()]
        pace = f"{progress.decided} decided, {progress.per_minute:.1f}/min, {fmt.duration(progress.seconds_left)} left"
        ids = self.queue.ids
        newer = snapshot.newest_id - max(ids[0], ids[-1]) if ids else 0
        news = f" · {newer:,} newer: ^r" if newer > 0 else ""
        return [
            Fact("", f"{describe(self.filters)}, {self.order}{news} · {pace}"),
            Fact("", " · ".join(parts), "muted"),
        ]

    def holds(self) -> set[Need]:
        return {Need.SAMPLE} if self.queue.cursor_id is not None else set()

    @property
    def queue(self) -> LineList:
        return self.query_one("#queue", LineList)

    def set_filter(self, filters: Filter, order: Order | None = None) -> None:
        """Work through another queue, from its beginning."""
        self.filters = filters
        self.order = order or self.order
        self.work(self._read_queue(follow=False), lambda _: self.read_again())

    # The card of the sample in hand

    @on(RowView.Moved, "#queue")
    def _moved(self) -> None:
        self.update_keys()
        self._show_card()
        self.work(self._fetch_cards(), group="card", exclusive=True)

    def _show_card(self) -> None:
        """Show the card of the sample in hand, if it is known already."""
        identifier = self.queue.cursor_id
        if identifier is None:
            hint = "No sample here. / filters, esc shows what is pending."
            self.query_one("#card", CodeView).set_blocks([Block("", hint, code=False)])
        elif identifier in self._cards:
            self.query_one("#card", CodeView).set_blocks(card_blocks(self._cards[identifier]))

    async def _fetch_cards(self, *, again: bool = False) -> None:
        """Fetch the cards of the sample in hand and of the next ones, and show the first.

        With `again` those that are known are fetched too, since their rows may have changed.
        """
        ahead = self.queue.ids[self.queue.cursor : self.queue.cursor + _AHEAD]
        wanted = [each for each in ahead if again or each not in self._cards]
        for card in await cards(self.ws, wanted) if wanted else ():
            self._cards[card.sample.id] = card
            self._cards.move_to_end(card.sample.id)
        while len(self._cards) > _CARDS:
            self._cards.popitem(last=False)
        self._show_card()

    # Decisions

    async def _decide(self, decision: Awaitable[Any]) -> None:
        identifier = self.queue.cursor_id
        done = await self.hafs.guarded(decision)
        if done is None or identifier is None:
            return
        self._cards.pop(identifier, None)
        self.queue.reload([identifier])
        if self.queue.cursor + 1 < self.queue.row_count:
            self.queue.cursor += 1
            self._show_card()
        else:
            # The last of the queue is decided: what came in meanwhile is the next queue.
            await self._read_queue()

    async def do_approve(self) -> None:
        await self._decide(deciding.approve(self.ws, self._in_hand()))

    async def do_reject(self) -> None:
        await self._decide(deciding.reject(self.ws, self._in_hand()))

    async def do_flag(self) -> None:
        await self._decide(deciding.flag(self.ws, self._in_hand()))

    async def do_skip(self) -> None:
        await self._decide(deciding.skip(self.ws, self._in_hand()))

    def do_reason(self) -> None:
        identifier = self._in_hand()
        reasons = self.ws.settings.review.reasons
        keys = [str(number) for number in range(1, len(reasons) + 1)]

        def chosen(key: str | None) -> None:
            if key == "o":
                self._ask_reason(identifier)
            elif key is not None:
                self.work(self._decide(deciding.reject(self.ws, identifier, reasons[int(key) - 1])))

        choices = [*zip(keys, reasons, strict=True), ("o", "another reason …")]
        self.app.push_screen(Choice("Reject: why?", choices), chosen)

    def _ask_reason(self, identifier: int) -> None:
        async def reject(answers: Answers) -> None:
            await self._decide(deciding.reject(self.ws, identifier, answers.optional_text("reason")))

        fields = (Field("reason", "Reason", required=False, help="Why this sample must not be trained on."),)
        self.app.push_screen(Form("Reject with a reason", fields, reject, send="Reject", enter_sends=True))

    def do_rate(self) -> None:
        identifier = self._in_hand()

        def chosen(key: str | None) -> None:
            if key is not None:
                self.work(self._rate(identifier, int(key)))

        self.app.push_screen(Choice("Rate this sample", RATINGS), chosen)

    async def _rate(self, identifier: int, rating: int) -> None:
        """A rating is said beside the decision, so the sample stays in hand."""
        await deciding.rate(self.ws, identifier, rating)
        self._cards.pop(identifier, None)
        await self._fetch_cards()

    async def do_undo(self) -> None:
        await self._take_back(deciding.undo(self.ws), "There is no decision of yours to undo.")

    async def do_redo(self) -> None:
        await self._take_back(deciding.redo(self.ws), "There is no undone decision to bring back.")

    async def _take_back(self, taking: Awaitable[list[Any]], none: str) -> None:
        done = await self.hafs.guarded(taking)
        if done is None:
            return
        if not done.value:
            self.tell(none)
            return
        identifier = done.value[0].sample_id
        self._cards.pop(identifier, None)
        self.queue.reload([identifier])
        if not self.queue.move_to(identifier):
            await self._read_queue()
            self.queue.move_to(identifier)
        await self._fetch_cards()

    # All that the filter shows

    def do_bulk(self) -> None:
        self.work(self._ask_bulk())

    async def _ask_bulk(self) -> None:
        """The dry run is the question: both counts, before either is decided."""
        filters = self.filters
        approved = await bulk.matching(self.ws, filters, "approve")
        rejected = await bulk.matching(self.ws, filters, "reject")
        title = f"All of: {describe(filters if filters.states else replace(filters, states=('pending',)))}"

        def chosen(key: str | None) -> None:
            if key == "a":
                self.work(bulk.approve_by_policy(self.ws, filters, bulk.policy_of(self.ws)), self._bulk_done)
            elif key == "x":
                self.work(
                    bulk.reject_by_policy(self.ws, filters, bulk.policy_of(self.ws), "by filter"),
                    self._bulk_done,
                )

        choices = [("a", f"approve {approved:,} samples"), ("x", f"reject {rejected:,} samples")]
        self.app.push_screen(Choice("Decide about all", choices, about=title), chosen)

    def _bulk_done(self, done: bulk.Bulk) -> None:
        self.tell(
            f"{done.count:,} samples: {done.kind}. {self.hafs.keymap.shown('review.undo_bulk')} undoes it."
        )
        self.read_everything()

    def do_undo_bulk(self) -> None:
        self.work(self._ask_undo_bulk())

    async def _ask_undo_bulk(self) -> None:
        last = await bulk.last_bulk(self.ws)
        if last is None:
            self.tell("There is no decision about all of a filter to undo.")
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.work(bulk.undo_bulk(self.ws, last), self._bulk_undone)

        question = f"Take back: {last.kind} {last.count:,} samples, {fmt.ago(last.at)}, by {last.policy}?"
        self.app.push_screen(Confirm(question, "Take back"), answered)

    def _bulk_undone(self, count: int) -> None:
        self.tell(f"{count:,} decisions taken back.")
        self.read_everything()

    def do_edit(self) -> None:
        card = self._cards.get(self._in_hand())
        if card is None:
            return
        sample = card.sample

        async def edit(answers: Answers) -> None:
            await deciding.edit(
                self.ws,
                sample.id,
                instruction=answers.text("instruction"),
                input=answers.text("input"),
                output=answers.text("output"),
            )
            self._cards.pop(sample.id, None)
            self.queue.reload([sample.id])

        fields = (
            Field("instruction", "Instruction", Kind.LONG_TEXT, sample.instruction),
            Field("input", "Input", Kind.LONG_TEXT, sample.input, required=False),
            Field("output", "Answer", Kind.LONG_TEXT, sample.output),
        )
        self.app.push_screen(Form(f"Edit sample {sample.id}", fields, edit, send="Save"))

    def do_edit_outside(self) -> None:
        card = self._cards.get(self._in_hand())
        if card is not None:
            self.work(self._edit_outside(card.sample.id, card.sample.output))

    async def _edit_outside(self, identifier: int, text: str) -> None:
        edited = await edit_outside(self.app, text, suffix=".asm")
        if edited is None:
            self.tell("The editor left the answer as it was.")
            return
        await deciding.edit(self.ws, identifier, output=edited)
        self._cards.pop(identifier, None)
        self.queue.reload([identifier])
        await self._fetch_cards()

    # Reading

    def do_copy(self) -> None:
        card = self._cards.get(self._in_hand())
        if card is not None:
            self.app.copy_to_clipboard(card.sample.output)
            self.tell(
                f"The answer of sample {card.sample.id} is on the clipboard, if your terminal allows it."
            )

    def do_wrap(self) -> None:
        self.query_one("#card", CodeView).toggle_wrap()

    async def do_guidelines(self) -> None:
        found = await self.hafs.guarded(asyncio.to_thread(guidelines.current, self.ws))
        if found is not None:
            known = found.value
            self.app.push_screen(Report(f"Guidelines, version {known.hash}", f"{known.text}\n{known.path}"))

    def _in_hand(self) -> int:
        identifier = self.queue.cursor_id
        assert identifier is not None  # noqa: S101 - the action table asks for Need.SAMPLE first
        return identifier

    # Filters

    def do_filter(self) -> None:
        self.work(campaigns.every(self.ws.db), self._ask_filter)

    def _ask_filter(self, found: list[campaigns.Campaign]) -> None:
        now = self.filters
        names = [("", "every campaign"), *((c.name, c.name) for c in found)]
        fields = (
            Field("text", "Words", default=now.text, required=False, help="The last may be a beginning."),
            Field("campaign", "Campaign", Kind.CHOICE, now.campaign or "", choices=names),
            Field("domain", "Domain", default=now.domain, required=False),
            Field("states", "States", Kind.CHOICES, now.states, required=False,
                  choices=[(state, state) for state in get_args(SampleState)], help="None means all."),
            Field("min_score", "Score at least", Kind.FLOAT, now.min_score, required=False),
            Field("order", "Order", Kind.CHOICE, self.order, choices=[(order, order) for order in ORDERS]),
        )  # fmt: skip

        async def apply(answers: Answers) -> None:
            states = tuple(s for s in get_args(SampleState) if s in answers.several("states"))
            order = next(o for o in ORDERS if o == answers.text("order"))
            self.set_filter(
                Filter(
                    campaign=answers.optional_text("campaign"),
                    domain=answers.optional_text("domain"),
                    states=states,
                    min_score=answers.optional_number("min_score"),
                    text=answers.optional_text("text"),
                ),
                order,
            )

        self.app.push_screen(Form("Filter samples", fields, apply, send="Show", enter_sends=True))

    def do_clear(self) -> None:
        self.set_filter(PENDING, "newest")

    def read_everything(self) -> None:
        self._queue_read = False
        super().read_everything()
