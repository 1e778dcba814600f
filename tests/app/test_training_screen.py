"""The Training screen: curves of the selected run, a dataset from a form, and refusals that keep what was typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion
from textual.pilot import Pilot
from textual.widgets import Input, Select

from backend.hosts.launching import launch_command
from backend.review import deciding
from backend.settings import Workspace
from backend.store import datasets, jobs, runs
from hafs_tui.app import HafsApp
from hafs_tui.screens.job_log import JobLog
from hafs_tui.screens.report import Report
from hafs_tui.screens.training import TrainingScreen
from hafs_tui.widgets.chart import Chart
from hafs_tui.widgets.code_view import CodeView
from hafs_tui.widgets.confirm import Confirm
from hafs_tui.widgets.facts import Facts
from hafs_tui.widgets.form import FieldRow, Form
from hafs_tui.widgets.log_view import LogView
from hafs_tui.widgets.table import Table
from tests.app.conftest import SIZES, until
from tests.app.looks import frozen, look, shown
from tests.app.stages import put_training
from tests.app.world import put_samples

__all__ = ["frozen"]


async def open_training(app: HafsApp, pilot: Pilot[None]) -> TrainingScreen:
    await pilot.press("5")
    screen = app.screen
    assert isinstance(screen, TrainingScreen)
    await until(lambda: screen.snapshot, pilot)
    return screen


@SIZES
async def test_the_selected_run_has_its_curves_its_recipe_and_its_words(
    app: HafsApp, ws: Workspace, size: tuple[int, int]
) -> None:
    await put_training(ws)
    async with app.run_test(size=size) as pilot:
        screen = await open_training(app, pilot)
        words = screen.query_one("#words", CodeView)
        await until(lambda: "out_of_memory" in shown(words), pilot)
        assert "load_in_4bit" in shown(words), "the remedy of a failure is not shown"
        await pilot.press("G")
        await until(lambda: "eval loss" in shown(screen.query_one(Chart)), pilot)
        await until(lambda: "truncated: 3 rows" in shown(words), pilot)
        assert "120/120" in shown(screen.query_one("#runs", Table))
        assert "pilot@2, 412 rows" in shown(screen.query_one(Facts))


async def test_other_figures_are_a_key_away_and_belong_to_the_kind_of_run(
    app: HafsApp, ws: Workspace
) -> None:
    await put_training(ws)
    async with app.run_test() as pilot:
        screen = await open_training(app, pilot)
        chart = screen.query_one(Chart)
        await pilot.press("j", "m")
        await until(lambda: "reward margin 0.6" in shown(chart), pilot)
        await pilot.press("j")
        await until(lambda: "eval loss" in shown(chart), pilot)
        await pilot.press("m")
        await until(lambda: "learning rate" in shown(chart), pilot)
        await pilot.press("M")
        await until(lambda: "eval loss" in shown(chart), pilot)


async def test_a_new_step_is_drawn_in_place(app: HafsApp, ws: Workspace) -> None:
    await put_training(ws)
    async with app.run_test() as pilot:
        screen = await open_training(app, pilot)
        await pilot.press("j")
        chart = screen.query_one(Chart)
        await until(lambda: "step 60" in shown(chart), pilot)
        async with ws.db.transaction() as t:
            await jobs.put_metrics(t, "job-pilot-dpo", 61, [("loss", float("1"))])
            await runs.progress(t, "job-pilot-dpo", 61, 120, 1.0, None)
        await until(lambda: "step 61" in shown(chart), pilot)
        assert chart is screen.query_one(Chart)
        assert "61/120" in shown(screen.query_one("#runs", Table))


async def test_a_dataset_is_built_from_a_form(app: HafsApp, ws: Workspace) -> None:
    for sample in await put_samples(ws, [f"Load A from ${n:02X}" for n in range(12)]):
        await deciding.approve(ws, sample)
    async with app.run_test(notifications=True) as pilot:
        await open_training(app, pilot)
        await pilot.press("d")
        await until(lambda: isinstance(app.screen, Form), pilot)
        await pilot.press(*"pilot", "ctrl+s")
        await until(lambda: isinstance(app.screen, TrainingScreen), pilot)
        (version,) = await datasets.every(ws.db)
        assert (version.name, version.train + version.val + version.test) == ("pilot", 12)
        assert any("pilot@1" in note.message for note in app._notifications)


async def test_a_dataset_is_imported_checked_and_exported(
    app: HafsApp, ws: Workspace, tmp_path: Path
) -> None:
    given, out = tmp_path / "given.jsonl", tmp_path / "out"
    rows = [
        {"instruction": f"What does opcode {n} of the table do?", "input": "", "output": f"It stores {n}."}
        for n in range(20)
    ]
    given.write_text("\n".join(json.dumps(row) for row in rows))
    async with app.run_test(notifications=True) as pilot:
        screen = await open_training(app, pilot)
        await pilot.press("i")
        await until(lambda: isinstance(app.screen, Form), pilot)
        app.screen.query(Input).first().value = str(given)
        await pilot.press("ctrl+s")
        await until(lambda: screen.snapshot is not None and screen.snapshot.datasets, pilot)
        await pilot.press("c")
        await until(lambda: isinstance(app.screen, Form), pilot)
        await pilot.press("ctrl+s")
        await until(lambda: isinstance(app.screen, Report), pilot)
        await until(lambda: "20 rows against each other" in shown(app.screen.query_one(CodeView)), pilot)
        await pilot.press("escape", "e")
        await until(lambda: isinstance(app.screen, Form), pilot)
        next(row.editor for row in app.screen.query(FieldRow) if row.described.name == "path").value = str(
            out
        )  # type: ignore[attr-defined]
        await pilot.press("ctrl+s")
        await until(lambda: app.screen is screen, pilot)
        assert sum(len(file.read_text().splitlines()) for file in out.glob("*.jsonl")) == 20


async def test_a_preset_fills_the_recipe_and_a_refusal_keeps_what_was_typed(
    app: HafsApp, ws: Workspace
) -> None:
    await put_training(ws)
    async with app.run_test() as pilot:
        await open_training(app, pilot)
        await pilot.press("n")
        await until(lambda: isinstance(app.screen, Form), pilot)
        rows = {row.described.name: row for row in app.screen.query(FieldRow)}
        assert {"lora_r", "learning_rate", "batch_size", "max_length", "load_in_4bit"} <= rows.keys()
        preset = rows["preset"].editor
        assert isinstance(preset, Select)
        preset.value = "qlora-16gb"
        await until(lambda: rows["gradient_accumulation_steps"].value() == 16, pilot)
        assert rows["load_in_4bit"].value() is True
        base = rows["base_model"].editor
        assert isinstance(base, Input)
        base.value = "no-such-model"
        rank = rows["lora_r"].editor
        assert isinstance(rank, Input)
        rank.value = "0"
        await pilot.press("ctrl+s")
        await until(lambda: rows["lora_r"].has_class("wrong"), pilot)
        rank.value = "8"
        await pilot.press("ctrl+s")
        bottom = app.screen.query_one(".wrong-form")
        await until(lambda: str(bottom.render()).startswith("✗"), pilot)
        assert base.value == "no-such-model"
        assert len(await runs.every(ws.db)) == 3


async def test_a_run_is_stopped_after_a_question_and_its_log_is_followed(app: HafsApp, ws: Workspace) -> None:
    code = "import time; print('step one', flush=True); time.sleep(60)"
    job = await launch_command(ws, "local", ("python3", "-c", code), kind="sft")
    async with ws.db.transaction() as t:
        await runs.insert(
            t, name="live", kind="sft", job_id=job.id, host="local", base_model="hub:x/y", parent=None,
            dataset_id=None, recipe="{}", output_dir="/out",
        )  # fmt: skip
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_training(app, pilot)
        await pilot.press("l")
        await until(lambda: isinstance(app.screen, JobLog), pilot)
        log = app.screen.query_one(LogView)
        await until(lambda: "step one" in shown(log), pilot)
        await pilot.press("escape", "x")
        await until(lambda: isinstance(app.screen, Confirm), pilot)
        await pilot.press("n")
        assert app.screen is screen
        await pilot.press("x")
        await until(lambda: isinstance(app.screen, Confirm), pilot)
        await pilot.press("y")
        await until(lambda: screen.selected is not None and screen.selected.state != "running", pilot)
        await pilot.press("l")
        await until(lambda: isinstance(app.screen, JobLog), pilot)
        await until(lambda: "— the job is cancelled" in shown(app.screen.query_one(LogView)), pilot, 40)


@pytest.mark.parametrize("key", ["n", "d", "x", "r", "l", "m"])
async def test_keys_without_a_run_say_why(app: HafsApp, key: str) -> None:
    async with app.run_test(notifications=True) as pilot:
        screen = await open_training(app, pilot)
        await pilot.press(key)
        await until(lambda: app._notifications, pilot)
        assert app.screen is screen


@SIZES
async def test_how_it_looks(
    app: HafsApp, ws: Workspace, size: tuple[int, int], snapshot: SnapshotAssertion, frozen: None
) -> None:
    await put_training(ws)
    async with app.run_test(size=size) as pilot:
        screen = await open_training(app, pilot)
        await pilot.press("G")
        await until(lambda: "pilot@2" in shown(screen.query_one(Facts)), pilot)
        await look(pilot, snapshot)
