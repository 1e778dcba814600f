"""The Evaluation screen: rates with their intervals, items, a form that really asks a model, and verdicts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion
from textual.pilot import Pilot
from textual.widgets import Input

from backend.settings import Workspace, open_workspace
from backend.store import evaluations
from hafs_tui.app import HafsApp
from hafs_tui.background import Background
from hafs_tui.screens.evaluation import EvaluationScreen
from hafs_tui.screens.report import Report
from hafs_tui.widgets.code_view import CodeView
from hafs_tui.widgets.form import FieldRow, Form
from hafs_tui.widgets.table import Table
from tests.app.conftest import SIZES, until
from tests.app.looks import frozen, look, shown
from tests.app.stages import put_evaluations
from tests.servers.openai_server import OpenAIServer

__all__ = ["frozen"]

ITEM = {"instruction": "Say yes.", "input": "", "output": "yes", "category": "words"}


async def open_evaluation(app: HafsApp, pilot: Pilot[None]) -> EvaluationScreen:
    await pilot.press("6")
    screen = app.screen
    assert isinstance(screen, EvaluationScreen)
    await until(lambda: screen.snapshot, pilot)
    return screen


@SIZES
async def test_rates_have_intervals_and_items_their_answers(
    app: HafsApp, ws: Workspace, size: tuple[int, int]
) -> None:
    await put_evaluations(ws)
    async with app.run_test(size=size) as pilot:
        screen = await open_evaluation(app, pilot)
        item = screen.query_one("#item", CodeView)
        await until(lambda: "no route to host" in shown(item), pilot)
        await pilot.press("j")
        await until(lambda: screen.snapshot is not None and len(screen.snapshot.items) == 4, pilot)
        table = shown(screen.query_one("#evaluations", Table))
        assert "75 % (30 to 95)" in table, "Wilson's interval of 3 of 4"
        assert "3/4" in table
        screen.query_one("#items").focus()
        await pilot.press("G")
        await until(lambda: "I think that you could use [LDA]." in shown(item), pilot)
        assert "wai" in shown(item), "the reference is not shown"
        assert "≈ cannot tell" in shown(screen.query_one("#comparisons", Table))


async def test_a_report_is_shown_as_it_stands_also_without_its_file(app: HafsApp, ws: Workspace) -> None:
    await put_evaluations(ws)
    async with app.run_test() as pilot:
        await open_evaluation(app, pilot)
        await pilot.press("o")
        await until(lambda: isinstance(app.screen, Report), pilot)
        assert "[bold]not bold[/bold]" in shown(app.screen.query_one(CodeView))
        await pilot.press("escape")
        next(ws.evaluations.glob("comparisons/*.md")).unlink()
        await pilot.press("o")
        await until(lambda: isinstance(app.screen, Report), pilot)
        await until(lambda: "Can't tell" in shown(app.screen.query_one(CodeView)), pilot)


async def test_two_evaluations_are_compared_from_a_form(app: HafsApp, ws: Workspace) -> None:
    await put_evaluations(ws)
    async with app.run_test() as pilot:
        screen = await open_evaluation(app, pilot)
        await pilot.press("c")
        await until(lambda: isinstance(app.screen, Form), pilot)
        await pilot.press("ctrl+s")
        await until(lambda: app.screen is screen, pilot)
        made = (await evaluations.comparisons(ws.db))[0]
        assert (made.baseline, made.finetuned, made.difference) == (1, 2, 0.5)
        assert made.report is not None
        assert Path(made.report).is_file()
        await until(lambda: screen.query_one("#comparisons", Table).row_count == 2, pilot)


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[tuple[Workspace, OpenAIServer]]:
    async with OpenAIServer(reply=lambda _: "yes") as server:
        config = tmp_path / "asked" / "config"
        config.mkdir(parents=True)
        (config / "settings.toml").write_text(f'[providers.openai]\nbase_url = "{server.base_url}"\n')
        async with open_workspace(tmp_path / "asked") as ws:
            yield ws, server


async def test_a_form_asks_a_model_and_the_answers_come_in(
    asked: tuple[Workspace, OpenAIServer], background: Background, tmp_path: Path
) -> None:
    ws, server = asked
    items = tmp_path / "yes_benchmark.jsonl"
    items.write_text("\n".join(json.dumps({"id": f"i{n}", "family": f"f{n}", **ITEM}) for n in range(5)))
    app = HafsApp(ws, background)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_evaluation(app, pilot)
        await pilot.press("n")
        await until(lambda: isinstance(app.screen, Form), pilot)
        rows = {row.described.name: row.editor for row in app.screen.query(FieldRow)}
        await pilot.press("ctrl+s")
        await until(lambda: app.screen.query(".wrong"), pilot)
        model, file = rows["model"], rows["file"]
        assert isinstance(model, Input)
        assert isinstance(file, Input)
        model.value, file.value = "api:openai/test-model", str(items) + ".gone"
        await pilot.press("ctrl+s")
        bottom = app.screen.query_one(".wrong-form")
        await until(lambda: "no benchmark" in str(bottom.render()), pilot)
        file.value = str(items)
        rows["benchmarks"].deselect_all()  # type: ignore[attr-defined]
        await pilot.press("ctrl+s")
        await until(lambda: app.screen is screen, pilot)
        await until(lambda: "5/5" in shown(screen.query_one("#evaluations", Table)), pilot)
        assert len(server.paid) == 5
        (row,) = await evaluations.every(ws.db)
        assert (row.model, row.state) == ("api:openai/test-model", "done")


@SIZES
async def test_how_it_looks(
    app: HafsApp, ws: Workspace, size: tuple[int, int], snapshot: SnapshotAssertion, frozen: None
) -> None:
    await put_evaluations(ws)
    async with app.run_test(size=size) as pilot:
        screen = await open_evaluation(app, pilot)
        await pilot.press("j")
        await until(lambda: "ldx" in shown(screen.query_one("#item")), pilot)
        await look(pilot, snapshot)
