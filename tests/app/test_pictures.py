"""What the first screens, the widgets and the help look like, at both sizes and in both themes."""

from __future__ import annotations

import math

import pytest
from syrupy.assertion import SnapshotAssertion
from textual.app import ComposeResult
from textual.screen import Screen

from backend.generation import progress
from backend.settings import Workspace
from hafs_tui.app import HafsApp
from hafs_tui.widgets.chart import Chart, Series
from hafs_tui.widgets.code_view import Block, CodeView
from hafs_tui.widgets.facts import Fact, Facts
from hafs_tui.widgets.form import Answers, Field, Form, Kind
from hafs_tui.widgets.gauge import Gauge
from hafs_tui.widgets.help_screen import HelpScreen
from hafs_tui.widgets.sparkline import Sparkline
from hafs_tui.widgets.table import Cell, Column, Row, Table
from remote import Reading
from tests.app.conftest import SIZES, until
from tests.app.looks import frozen, look
from tests.app.stages import AT
from tests.app.world import ASM, put_world

__all__ = ["frozen"]


async def put_still_world(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The world with all its times fixed."""
    await put_world(ws)
    async with ws.db.transaction() as transaction:
        await transaction.execute("UPDATE samples SET created_at = ? + id * 10", (AT,))
        await transaction.execute("UPDATE requests SET sent_at = ?, ended_at = ?", (AT, AT))
        await transaction.execute("UPDATE runs SET created_at = ?", (AT,))
    monkeypatch.setattr(progress, "now", lambda: AT + 310)


@SIZES
@pytest.mark.parametrize(("key", "mode"), [("1", "overview"), ("2", "campaigns"), ("3", "review")])
@pytest.mark.usefixtures("frozen")
async def test_how_a_screen_looks(
    app: HafsApp,
    ws: Workspace,
    snapshot: SnapshotAssertion,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
    key: str,
    mode: str,
) -> None:
    await put_still_world(ws, monkeypatch)
    gpu = Reading("box", 0, "RTX", 97.0, 15_000.0, 16_384.0, 71.0, 280.0, AT)
    app.gauges.add([Reading("local", -1, "CPU", 37.0, 5_000.0, 24_000.0, None, None, AT), gpu])
    async with app.run_test(size=size) as pilot:
        await pilot.press(key)
        await until(lambda: app.mode_screen is not None and app.mode_screen.snapshot is not None, pilot)
        if mode == "review":
            card = app.screen.query_one(CodeView)
            await until(lambda: "sample 30" in card.render_line(0).text, pilot)
        await look(pilot, snapshot)


class Gallery(Screen[None]):
    """Every widget that draws, with something in it."""

    DEFAULT_CSS = "Gallery Chart { height: 11; } Gallery Table { height: 5; } Gallery Facts { height: 2; }"

    def compose(self) -> ComposeResult:
        yield Gauge("memory", id="gauge")
        yield Sparkline()
        yield Chart()
        yield Table([Column("Name"), Column("State", 9), Column("Count", 7, "right")])
        yield Facts()
        yield CodeView()

    def on_mount(self) -> None:
        self.query_one(Gauge).set_value(0.43, "6.9/16.0 GiB")
        self.query_one(Sparkline).set_values([math.sin(x / 5) if x != 40 else math.nan for x in range(80)])
        falling = [(float(x), 4 / (1 + x / 20) if x != 60 else math.nan) for x in range(1, 120)]
        above = [(x, y + 0.4) for x, y in falling[::10]]
        self.query_one(Chart).set_series([Series("loss", falling), Series("eval loss", above)])
        self.query_one(Table).set_rows(
            [
                Row(1, (Cell("日本語のテキスト"), Cell("running", "accent"), Cell("12"))),
                Row(2, (Cell("[/foo] \x1b]52;c;x\x07"), Cell("failed", "bad"), Cell("1,234,567,890"))),
                Row(3, (Cell("plain"), Cell("done", "good"), Cell("0", "muted"))),
            ]
        )
        self.query_one(Facts).set_facts([Fact("label", "value"), Fact("", "a whole line", "warning")])
        self.query_one(CodeView).set_blocks([Block("Answer", ASM)])


@pytest.mark.parametrize("theme", ["hafs-dark", "hafs-light"])
async def test_how_the_widgets_look(app: HafsApp, snapshot: SnapshotAssertion, theme: str) -> None:
    async with app.run_test(size=(90, 36)) as pilot:
        app.theme = theme
        app.push_screen(Gallery())
        await until(lambda: isinstance(app.screen, Gallery) and app.screen.is_mounted, pilot)
        await look(pilot, snapshot)


async def test_how_the_help_looks(app: HafsApp, snapshot: SnapshotAssertion) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("3", "question_mark")
        await until(lambda: isinstance(app.screen, HelpScreen), pilot)
        await look(pilot, snapshot)


async def test_how_a_form_looks(app: HafsApp, snapshot: SnapshotAssertion) -> None:
    async def whole(answers: Answers) -> Answers:
        return answers

    fields = (
        Field("name", "Name", help="Letters, digits, '.', '_' and '-'."),
        Field("provider", "Provider", Kind.CHOICE, "a", choices=[("a", "gemini"), ("b", "openai")]),
        Field("target", "Accepted samples", Kind.INT, 0, minimum=1),
        Field("domains", "Domains", Kind.CHOICES, ("asm",), choices=[("asm", "asm: 65816"), ("x", "words")]),
        Field("budget", "Budget in dollars", Kind.FLOAT, required=False),
        Field("prompt", "Prompt", Kind.LONG_TEXT, ASM),
        Field("start", "Start now", Kind.BOOL, True),
    )
    async with app.run_test(size=(80, 24)) as pilot:
        app.push_screen(Form("New campaign", fields, whole))
        await until(lambda: isinstance(app.screen, Form) and app.focused is not None, pilot)
        await pilot.press("ctrl+s")
        await until(lambda: app.screen.query(".wrong"), pilot)
        await look(pilot, snapshot)
