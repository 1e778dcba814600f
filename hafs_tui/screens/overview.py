"""The Overview: what runs now, what waits for a person, and what came out last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical

from backend.store.deployments import Deployment
from backend.store.evaluations import ComparisonRow
from hafs_tui import format as fmt
from hafs_tui.mode_screen import ModeScreen, mode_keys
from hafs_tui.snapshots.campaigns import CampaignReader
from hafs_tui.snapshots.overview import OverviewSnapshot, Training, read
from hafs_tui.widgets.facts import Fact, Facts
from hafs_tui.widgets.gauge import bar
from hafs_tui.widgets.rows import Tone
from hafs_tui.widgets.sparkline import Sparkline
from hafs_tui.widgets.table import Cell, Column, Row, Table
from remote import Reading

VERDICTS: Mapping[str, tuple[str, Tone]] = {
    "better": ("▲ better", "good"),
    "worse": ("▼ worse", "bad"),
    "cannot_tell": ("≈ cannot tell", "warning"),
}
_GAUGE_CELLS = 10


class OverviewScreen(ModeScreen[OverviewSnapshot]):
    """Nothing is done here; each part says which mode has the rest."""

    GROUP = "overview"
    BINDINGS: ClassVar[list[BindingType]] = [*mode_keys("overview")]
    DEFAULT_CSS = """
    OverviewScreen .panel { padding: 0 1; }
    OverviewScreen #running { height: 1fr; min-height: 6; }
    OverviewScreen Horizontal { height: 1fr; min-height: 7; max-height: 12; }
    OverviewScreen Horizontal > .panel { width: 1fr; height: 1fr; }
    OverviewScreen #curve { height: 1; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._campaigns = CampaignReader()
        self._gauges_seen = -1

    def body(self) -> ComposeResult:
        with Vertical(classes="panel", id="running") as panel:
            panel.border_title = "Campaigns"
            yield Table(
                [Column("Campaign"), Column("State", 9), Column("Accepted", 11, "right"), Column("", 8),
                 Column("Rate", 9, "right"), Column("ETA", 10, "right")],
                empty="No campaign yet: 2 opens Campaigns, n makes one.",
            )  # fmt: skip
        with Horizontal():
            with Vertical(classes="panel") as panel:
                panel.border_title = "Training"
                yield Facts(id="training", label_width=8)
                yield Sparkline(id="curve")
            with Vertical(classes="panel") as panel:
                panel.border_title = "Processors"
                yield Facts(id="processors", label_width=11)
        with Horizontal():
            with Vertical(classes="panel") as panel:
                panel.border_title = "Waiting for you"
                yield Facts(id="waiting", label_width=18)
            with Vertical(classes="panel") as panel:
                panel.border_title = "Outcome"
                yield Facts(id="outcome", label_width=8)

    def on_mount(self) -> None:
        super().on_mount()
        self.set_interval(1.0, self._show_gauges)

    async def read(self) -> OverviewSnapshot:
        return await read(self.ws, self._campaigns)

    def show(self, snapshot: OverviewSnapshot) -> None:
        self.query_one(Table).set_rows(
            [
                Row(
                    each.campaign.name,
                    (
                        Cell(each.campaign.name, "strong"),
                        Cell(each.campaign.state, "accent" if each.campaign.state == "running" else "muted"),
                        Cell(f"{fmt.count(each.accepted)}/{fmt.count(each.campaign.target)}"),
                        Cell(bar(each.accepted / each.campaign.target, 8), "accent"),
                        Cell(fmt.per_minute(each.rate)),
                        Cell(fmt.duration(each.eta_s)),
                    ),
                )
                for each in snapshot.campaigns
            ]
        )
        self._facts("#training").set_facts(training_facts(snapshot.training, snapshot.jobs_active))
        self.query_one("#curve", Sparkline).set_values(snapshot.training.losses if snapshot.training else ())
        self._facts("#waiting").set_facts(_waiting(snapshot))
        self._facts("#outcome").set_facts(_outcome(snapshot.verdict, snapshot.deployments))
        self._show_gauges()

    def _show_gauges(self) -> None:
        gauges = self.hafs.gauges
        if not self.is_shown or gauges.version == self._gauges_seen:
            return
        self._gauges_seen = gauges.version
        facts = [fact for reading in gauges.latest() for fact in reading_facts(reading)]
        facts += [Fact(host, problem, "warning") for host, problem in gauges.problems.items()]
        self._facts("#processors").set_facts(facts)

    def _facts(self, selector: str) -> Facts:
        return self.query_one(selector, Facts)


def training_facts(training: Training | None, jobs_active: int) -> list[Fact]:
    """The newest run in four lines."""
    if training is None:
        return [Fact("", "No run yet: 5 opens Training."), Fact("jobs", f"{jobs_active} under way")]
    run = training.run
    share = fmt.of(run.step, run.total_steps)
    steps = f"{fmt.count(run.step)}/{fmt.count(run.total_steps)} {fmt.percent(share)}"
    last = training.margins[-1] if training.margins else None
    margin = f", margin {fmt.number(last)}" if last is not None else ""
    tone: Tone = "bad" if run.state in ("failed", "lost") else "good" if run.state == "done" else "accent"
    return [
        Fact("run", f"{run.name} ({run.kind}) on {run.host}"),
        Fact("state", f"{run.state}, step {steps}", tone),
        Fact("loss", f"{fmt.number(run.loss)}, eval {fmt.number(run.eval_loss)}{margin}"),
        Fact("jobs", f"{jobs_active} under way"),
    ]


def reading_facts(reading: Reading) -> list[Fact]:
    """A processor or GPU in two lines: how busy it is, and how full its memory."""
    name = f"{reading.host} {'CPU' if reading.index < 0 else reading.index}"
    old = f" ({fmt.duration(reading.stale_s)} old)" if reading.stale_s > 0 else ""
    busy = (reading.utilization or 0.0) / 100
    memory = fmt.of(reading.memory_used_mib, reading.memory_total_mib)
    heat = f" {reading.temperature_c:.0f}°C" if reading.temperature_c is not None else ""
    tone: Tone = "muted" if reading.stale_s > 0 else ""
    return [
        Fact(name, f"▕{bar(busy, _GAUGE_CELLS)}▏{fmt.percent(busy)}{heat}{old}", tone),
        Fact(
            "  memory",
            f"▕{bar(memory or 0.0, _GAUGE_CELLS)}▏{fmt.gib(reading.memory_used_mib)}/"
            f"{fmt.gib(reading.memory_total_mib)} GiB",
            tone,
        ),
    ]


def _waiting(snapshot: OverviewSnapshot) -> list[Fact]:
    counts = snapshot.samples
    failed = [p.campaign.name for p in snapshot.campaigns if p.campaign.state == "failed"]
    facts = [
        Fact(
            "samples to review",
            fmt.count(counts.get("pending", 0)),
            "strong" if counts.get("pending") else "",
        ),
        Fact("flagged", fmt.count(counts.get("flagged", 0)), "warning" if counts.get("flagged") else ""),
        Fact(
            "pairs to review", fmt.count(snapshot.pairs_pending), "strong" if snapshot.pairs_pending else ""
        ),
        Fact("approved", fmt.count(counts.get("approved", 0)), "good" if counts.get("approved") else ""),
    ]
    if failed:
        facts.append(Fact("failed campaigns", ", ".join(failed), "bad"))
    return facts


def _outcome(
    verdict: tuple[ComparisonRow, str, str] | None, deployments: tuple[Deployment, ...]
) -> list[Fact]:
    facts = [Fact("verdict", "no comparison yet")]
    if verdict is not None:
        row, baseline, finetuned = verdict
        words, tone = VERDICTS[row.verdict]
        gained = f"{100 * row.difference:+.1f} points ({100 * row.low:+.1f} to {100 * row.high:+.1f})"
        facts = [
            Fact("verdict", f"{words}, {gained}", tone),
            Fact("", f"{finetuned} against {baseline}", "muted"),
        ]
    serving = [each for each in deployments if each.state in ("serving", "published", "starting", "failed")]
    facts += [
        Fact("deployed" if index == 0 else " ", f"{each.name} v{each.version} {each.kind} {each.state}",
             "bad" if each.state == "failed" else "good" if each.state == "serving" else "")
        for index, each in enumerate(serving[:3])
    ]  # fmt: skip
    return facts if serving else [*facts, Fact("deployed", "nothing yet: 7 opens Deploy")]
