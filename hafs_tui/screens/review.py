"""The Review screen: a queue of samples beside the one in hand, and one key for each decision.

A decision is on disk before the next key is looked at, so a key always means the sample that was shown. The
queue keeps its order while it is worked through; what comes in meanwhile waits for the next queue.
"""

from __future__ import annotations

import time
from array import array
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from typing import Any, ClassVar, get_args

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal

from backend.review import deciding, queues
from backend.review.card import Card, cards
from backend.review.queues import ORDERS, Order
from backend.store import campaigns, samples
from backend.store.samples import Filter, GateRow, SampleState
from hafs_tui import format as fmt
from hafs_tui.actions import Need
from hafs_tui.mode_screen import ModeScreen, mode_keys
from hafs_tui.snapshots.review import STATES, ReviewSnapshot, read, rows
from hafs_tui.widgets.code_view import Block, CodeView
from hafs_tui.widgets.facts import Fact, Facts
from hafs_tui.widgets.form import Answers, Field, Form, Kind
from hafs_tui.widgets.line_list import LineList
from hafs_tui.widgets.rows import Cells, Column, RowView

PENDING = Filter(states=("pending",))
# Samples that are there at once when a queue is opened, and cards that are fetched before they are asked for.
_FIRST = 200
_AHEAD = 4
_CARDS = 64


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
                [Column("", 1), Column("Score", 5, "right"), Column("Domain", 8), Column("Instruction")],
                self._rows,
                empty="No sample here.",
                id="queue",
            )
            yield CodeView(id="card")

    async def _rows(self, ids: Sequence[int]) -> dict[int, Cells]:
        return await rows(self.ws, ids)

    async def read(self) -> ReviewSnapshot:
        if not self._queue_read or not self.queue.row_count:
            self._queue_read = True
            await self._read_queue()
        return await read(self.ws, self.filters, self._since)

    async def _read_queue(self, *, follow: bool = True) -> None:
        if self.order in ("newest", "oldest"):
            # The first samples are there at once, however long the rest takes.
            newest_first = self.order == "newest"
            first = await samples.ids(self.ws.db, self.filters, newest_first=newest_first, limit=_FIRST)
            self.queue.set_ids(array("q", first), follow=follow)
            await self._fetch_cards()
            if len(first) < _FIRST:
                return
        found = await queues.ids(self.ws, self.filters, self.order, seed=int(self._since))
        self.queue.set_ids(array("q", found), follow=follow)
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

        async def reject(answers: Answers) -> None:
            await self._decide(deciding.reject(self.ws, identifier, answers.optional_text("reason")))

        fields = (Field("reason", "Reason", required=False, help="Why this sample must not be trained on."),)
        self.app.push_screen(Form("Reject with a reason", fields, reject, send="Reject", enter_sends=True))

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


def describe(filters: Filter) -> str:
    """A filter in words."""
    parts = [", ".join(filters.states) or "every state"]
    if filters.text:
        parts.append(f"“{filters.text}”")
    if filters.campaign:
        parts.append(f"campaign {filters.campaign}")
    if filters.domain:
        parts.append(f"domain {filters.domain}")
    if filters.min_score is not None:
        parts.append(f"score ≥ {filters.min_score:g}")
    return " · ".join(parts)


def card_blocks(card: Card) -> list[Block]:
    """A card as blocks: what is decided on first, then why it is here and what happened to it."""
    sample = card.sample
    sign = STATES[sample.state][0]
    head = f"{sign} {sample.state} · sample {sample.id} · revision {sample.revision}"
    blocks = [Block(head, sample.instruction)]
    if sample.input:
        blocks.append(Block("Input", sample.input))
    blocks.append(Block("Answer", sample.output))
    if card.gates:
        lines = [_gate_line(gate) for gate in card.gates]
        blocks.append(Block("Gates", "\n".join(lines), code=False))
    blocks.append(Block("From", "\n".join(_origin(card)), code=False))
    if card.decisions:
        lines = [
            f"{decision.kind} by {decision.reviewer} ({decision.reviewer_kind}), {fmt.ago(decision.at)}"
            + (f": {decision.reason}" if decision.reason else "")
            for decision in card.decisions
        ]
        blocks.append(Block("Decisions", "\n".join(lines), code=False))
    return blocks


def _gate_line(gate: GateRow) -> str:
    mark = {True: "✓", False: "✗", None: "-"}[gate.passed]
    figure = "" if gate.figure is None else f" {fmt.number(gate.figure)}"
    return f"{mark} {gate.name}{figure} {gate.reason}"


def _origin(card: Card) -> list[str]:
    sample, request = card.sample, card.provenance
    lines = [f"domain {sample.domain}, family {sample.family}, {sample.source}, {fmt.ago(sample.created_at)}"]
    if card.campaign:
        lines.append(f"campaign {card.campaign}")
    if request is not None:
        tokens = f"{fmt.count(request.prompt_tokens)} in, {fmt.count(request.completion_tokens)} out"
        lines.append(f"{request.provider}/{request.model}, {tokens}, {fmt.money(request.cost_usd)}")
        if request.routing:
            lines.append(f"routing: {request.routing}")
    return lines
