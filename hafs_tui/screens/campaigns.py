"""The Campaigns screen: every campaign, and of the selected one the domains, figures and failures."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal

from backend.generation.campaigns import (
    PROVIDERS,
    NewCampaign,
    RoutingDecision,
    cancel,
    clone,
    create,
    pause,
    retarget,
    set_priority,
)
from backend.generation.domains import Domain, load_domains
from backend.generation.engine import run_campaign
from backend.generation.progress import Progress
from backend.store.samples import Filter
from hafs_tui import format as fmt
from hafs_tui.actions import Need
from hafs_tui.mode_screen import ModeScreen, mode_keys
from hafs_tui.screens.review import ReviewScreen
from hafs_tui.snapshots.campaigns import CampaignReader, CampaignsSnapshot
from hafs_tui.widgets.confirm import Confirm
from hafs_tui.widgets.facts import Fact, Facts
from hafs_tui.widgets.form import Answers, Field, Form, Kind
from hafs_tui.widgets.gauge import bar
from hafs_tui.widgets.rows import RowView, Tone
from hafs_tui.widgets.table import Cell, Column, Row, Table

STATE_TONES: Mapping[str, Tone] = {
    "running": "accent", "done": "good", "failed": "bad", "paused": "warning", "cancelled": "muted"
}  # fmt: skip


class CampaignsScreen(ModeScreen[CampaignsSnapshot]):
    """Campaigns run in this app, in another, or without a screen: all are shown by their rows."""

    GROUP = "campaigns"
    BINDINGS: ClassVar[list[BindingType]] = [*mode_keys("campaigns")]
    DEFAULT_CSS = """
    CampaignsScreen #campaigns { height: 2fr; }
    CampaignsScreen .middle { height: 10; }
    CampaignsScreen #domains { width: 3fr; height: 1fr; }
    CampaignsScreen #figures { width: 2fr; padding-left: 1; }
    CampaignsScreen #routing { height: 1; display: none; }
    CampaignsScreen #failures { height: 1fr; min-height: 4; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._reader = CampaignReader()

    def body(self) -> ComposeResult:
        yield Table(
            [
                Column("Campaign"),
                Column("State", 9),
                Column("Accepted", 11, "right"),
                Column("", 6),
                Column("Rate", 9, "right"),
                Column("ETA", 10, "right"),
                Column("Cost", 7, "right"),
            ],
            empty="No campaign yet. Press n to make one.",
            id="campaigns",
        )
        with Horizontal(classes="middle"):
            yield Table(
                [
                    Column("Domain"),
                    Column("", 10),
                    Column("Done", 11, "right"),
                    Column("Rejected", 8, "right"),
                ],
                id="domains",
            )
            yield Facts(id="figures", label_width=9)
        yield Facts(id="routing", label_width=9)
        yield Table([Column("Failed", 11), Column("Kind", 12), Column("Message")], id="failures")

    async def read(self) -> CampaignsSnapshot:
        selected = self._table("#campaigns").cursor_key
        return await self._reader.read(self.ws, str(selected) if selected is not None else None)

    def show(self, snapshot: CampaignsSnapshot) -> None:
        self._table("#campaigns").set_rows([_row(each) for each in snapshot.campaigns])
        self._show_selected()
        routing = self.query_one("#routing", Facts)
        routing.display = snapshot.newest is not None
        routing.set_facts(_routing(snapshot.newest))
        self._table("#failures").set_rows(
            [
                Row(
                    request.id,
                    (
                        Cell(fmt.ago(request.ended_at), "muted"),
                        Cell(request.error_kind or request.state, "bad"),
                        Cell(f"{request.domain or ''}: {request.error_message or ''}"),
                    ),
                )
                for request in snapshot.failures
            ]
        )

    @property
    def selected(self) -> Progress | None:
        """The campaign under the cursor."""
        key = self._table("#campaigns").cursor_key
        campaigns = self.snapshot.campaigns if self.snapshot is not None else ()
        return next((each for each in campaigns if each.campaign.name == key), None)

    def holds(self) -> set[Need]:
        selected = self.selected
        if selected is None:
            return set()
        state = selected.campaign.state
        holds = {Need.CAMPAIGN}
        if state == "running":
            holds.add(Need.CAMPAIGN_RUNS)
        elif state not in ("done", "cancelled"):
            holds.add(Need.CAMPAIGN_RESTS)
        if state not in ("done", "cancelled"):
            holds.add(Need.CAMPAIGN_OPEN)
        if state not in ("running", "cancelled"):
            holds.add(Need.CAMPAIGN_STANDS)
        return holds

    @on(RowView.Moved, "#campaigns")
    def _moved(self) -> None:
        self._show_selected()
        self.update_keys()
        if self.snapshot is not None and self._table("#campaigns").cursor_key != self.snapshot.selected:
            self.read_again()

    def _show_selected(self) -> None:
        selected = self.selected
        self._table("#domains").set_rows(_domain_rows(selected) if selected else [])
        self.query_one("#figures", Facts).set_facts(_figures(selected) if selected else [])

    def _table(self, selector: str) -> Table:
        return self.query_one(selector, Table)

    # Actions

    def do_new(self) -> None:
        self.work(asyncio.to_thread(load_domains, self.ws.config), self._ask_new)

    def _ask_new(self, domains: Mapping[str, Domain]) -> None:
        defaults = self.ws.settings.campaign
        fields = (
            Field("name", "Name", help="Letters, digits, '.', '_' and '-'."),
            Field("provider", "Provider", Kind.CHOICE, "embedded", choices=[(p, p) for p in PROVIDERS],
                  help="Keys come from the environment or the keyring."),
            Field("model", "Model", default="smollm2", help="As the provider names it."),
            Field("local", "Local model", required=False,
                  help="ollama:MODEL or ollama:MODEL@HOST, to share requests with your own GPU."),
            Field("base_url", "Address", required=False, help="Only for a server of your own."),
            Field("target", "Accepted samples", Kind.INT, 100, minimum=1),
            Field("domains", "Domains", Kind.CHOICES, tuple(domains),
                  choices=[(name, f"{name}: {domain.title}") for name, domain in domains.items()]),
            Field("budget_usd", "Budget in dollars", Kind.FLOAT, required=False, minimum=0),
            Field("temperature", "Temperature", Kind.FLOAT, defaults.temperature, minimum=0, maximum=2),
            Field("parallel", "Requests at once", Kind.INT, defaults.parallel, minimum=1, maximum=512),
            Field("seed", "Seed", Kind.INT, defaults.seed),
            Field("start", "Start now", Kind.BOOL, True),
        )  # fmt: skip
        self.app.push_screen(Form("New campaign", fields, self._create))

    async def _create(self, answers: Answers) -> str:
        campaign = await create(
            self.ws,
            NewCampaign(
                name=answers.text("name"),
                provider=answers.text("provider"),
                model=answers.text("model"),
                target=answers.integer("target"),
                domains=answers.several("domains"),
                base_url=answers.optional_text("base_url"),
                local=answers.optional_text("local"),
                temperature=answers.number("temperature"),
                parallel=answers.integer("parallel"),
                seed=answers.integer("seed"),
                budget_usd=answers.optional_number("budget_usd"),
            ),
        )
        if answers.flag("start"):
            self._start(campaign.name)
        return campaign.name

    def do_run(self) -> None:
        if self.selected is not None:
            self._start(self.selected.campaign.name)

    def _start(self, name: str) -> None:
        if not self.hafs.background.start(f"campaign {name}", run_campaign(self.ws, name)):
            self.tell(f"{name} runs in this app already")

    def do_pause(self) -> None:
        if self.selected is not None:
            self.work(pause(self.ws, self.selected.campaign.name))

    def do_cancel(self) -> None:
        if self.selected is None:
            return
        name = self.selected.campaign.name

        def answered(yes: bool | None) -> None:
            if yes:
                self.work(cancel(self.ws, name))

        question = f"End campaign {name} for good? What it accepted stays; it cannot run again."
        self.app.push_screen(Confirm(question, "End it"), answered)

    def do_clone(self) -> None:
        if self.selected is None:
            return
        name = self.selected.campaign.name

        async def made(answers: Answers) -> str:
            return (await clone(self.ws, name, answers.text("name"))).name

        self.app.push_screen(Form(f"Clone {name}", (Field("name", "Name of the new one"),), made))

    def do_retarget(self) -> None:
        if self.selected is None:
            return
        campaign = self.selected.campaign

        async def raised(answers: Answers) -> str:
            return (await retarget(self.ws, campaign.name, answers.integer("target"))).name

        wanted = Field("target", "Accepted samples", Kind.INT, campaign.target, minimum=campaign.target + 1)
        self.app.push_screen(Form(f"Raise the target of {campaign.name}", (wanted,), raised))

    def do_priority(self) -> None:
        if self.selected is None:
            return
        campaign = self.selected.campaign

        async def said(answers: Answers) -> str:
            return (await set_priority(self.ws, campaign.name, answers.integer("priority"))).name

        wanted = Field("priority", "Priority", Kind.INT, campaign.priority, help="The higher goes first.")
        self.app.push_screen(Form(f"Priority of {campaign.name}", (wanted,), said))

    async def do_review(self) -> None:
        if self.selected is None:
            return
        name = self.selected.campaign.name
        await self.app.switch_mode("review")
        if isinstance(self.app.screen, ReviewScreen):
            self.app.screen.set_filter(Filter(campaign=name))


def _row(progress: Progress) -> Row:
    campaign = progress.campaign
    state = f"{campaign.state}" if campaign.wish is None else f"{campaign.wish} …"
    accepted = f"{fmt.count(progress.accepted)}/{fmt.count(campaign.target)}"
    cells = (
        Cell(campaign.name, "strong"),
        Cell(state, STATE_TONES.get(campaign.state, "")),
        Cell(accepted),
        Cell(bar(progress.accepted / campaign.target, 6), "accent"),
        Cell(fmt.per_minute(progress.rate)),
        Cell(fmt.duration(progress.eta_s)),
        Cell(fmt.money(progress.spent.cost_usd)),
    )
    return Row(campaign.name, cells)


def _domain_rows(progress: Progress) -> list[Row]:
    return [
        Row(
            domain.domain,
            (
                Cell(domain.domain + (" (seeds used up)" if domain.exhausted else "")),
                Cell(bar(domain.accepted / max(1, domain.target), 10), "accent"),
                Cell(f"{fmt.count(domain.accepted)}/{fmt.count(domain.target)}"),
                Cell(fmt.count(domain.rejected), "muted"),
            ),
        )
        for domain in progress.domains
    ]


def _routing(newest: RoutingDecision | None) -> list[Fact]:
    """Why the newest request of a hybrid campaign went where it went."""
    if newest is None:
        return []
    return [Fact("newest", f"{newest.provider}/{newest.model}: {newest.reason}")]


def _figures(progress: Progress) -> list[Fact]:
    campaign, spent = progress.campaign, progress.spent
    eta = fmt.duration(progress.eta_s)
    if progress.eta_low_s is not None:
        eta += f" ({fmt.duration(progress.eta_low_s)} to {fmt.duration(progress.eta_high_s)})"
    facts = [Fact("model", f"{campaign.provider}/{campaign.model}")]
    if campaign.local is not None:
        facts.append(Fact("local", campaign.local))
    facts += [
        Fact("accepted", f"{fmt.percent(progress.acceptance)} of judged"),
        Fact("rate", f"{fmt.per_minute(progress.rate)}, {fmt.per_minute(progress.requests_per_s)} asked"),
        Fact("ETA", eta),
        Fact("cost", f"{fmt.money(spent.cost_usd)}, whole ≈ {fmt.money(progress.projected_usd)}"),
        Fact("requests", f"{fmt.count(spent.requests)}, {spent.failed} failed, {spent.unanswered} lost"),
        Fact("tokens", f"{fmt.count(spent.prompt_tokens)} in, {fmt.count(spent.completion_tokens)} out"),
    ]
    if spent.unpriced:
        facts.append(Fact("unpriced", f"{fmt.count(spent.unpriced)} answers", "warning"))
    if campaign.error:
        facts.append(Fact("", campaign.error, "bad" if campaign.state == "failed" else "warning"))
    return facts
