"""The reviewer: decisions by key, on disk before the next key, undone without limit, in any queue."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static, TextArea

from backend.review import deciding, guidelines
from backend.settings import Workspace
from backend.store import decisions, samples
from backend.store.samples import Filter
from hafs_tui.app import HafsApp
from hafs_tui.screens.report import Report
from hafs_tui.screens.review import ReviewScreen
from hafs_tui.widgets.choice import Choice
from hafs_tui.widgets.code_view import CodeView
from hafs_tui.widgets.confirm import Confirm
from hafs_tui.widgets.form import Form
from tests.app.conftest import SIZES, until
from tests.app.world import put_samples


def text_of(view: CodeView) -> str:
    return "\n".join(view.render_line(y).text for y in range(view.size.height))


def dialog_text(app: HafsApp) -> str:
    return "\n".join(str(line.render()) for line in app.screen.query(Static))


async def open_review(app: HafsApp, pilot: Pilot[None], rows: int) -> ReviewScreen:
    await pilot.press("3")
    screen = app.screen
    assert isinstance(screen, ReviewScreen)
    await until(lambda: screen.queue.row_count == rows and screen.snapshot, pilot)
    return screen


async def until_log(
    ws: Workspace, sample_id: int, expected: list[tuple[str, str | None, int | None]], pilot: Pilot[None]
) -> None:
    """Wait until the sample's decisions are these: [(kind, reason, rating)]."""
    deadline = time.monotonic() + 20
    while True:
        log = [(d.kind, d.reason, d.rating) for d in await decisions.of_sample(ws.db, sample_id)]
        if log == expected:
            return
        assert time.monotonic() < deadline, log
        await pilot.pause(0.02)


async def state(ws: Workspace, sample_id: int) -> str:
    sample = await samples.by_id(ws.db, sample_id)
    assert sample is not None
    return sample.state


@SIZES
async def test_one_key_decides_and_the_next_sample_is_there(
    app: HafsApp, ws: Workspace, size: tuple[int, int]
) -> None:
    first, second, third, fourth = await put_samples(ws, ["one", "two", "three", "four"])
    async with app.run_test(size=size) as pilot:
        screen = await open_review(app, pilot, 4)
        card = screen.query_one(CodeView)
        await until(lambda: "four" in text_of(card), pilot)
        await pilot.press("a")
        assert await state(ws, fourth) == "approved"
        await until(lambda: "three" in text_of(card), pilot)
        await pilot.press("x", "f", "space")
        assert [await state(ws, i) for i in (third, second, first)] == ["rejected", "flagged", "pending"]
        log = await decisions.of_sample(ws.db, fourth)
        assert [(d.kind, d.reviewer_kind) for d in log] == [("approve", "person")]


async def test_undo_goes_back_without_limit_and_redo_returns(app: HafsApp, ws: Workspace) -> None:
    ids = await put_samples(ws, ["one", "two", "three"])
    await deciding.approve(ws, ids[0])  # of an earlier session
    async with app.run_test() as pilot:
        screen = await open_review(app, pilot, 2)
        await pilot.press("a", "x")
        await pilot.press("u")
        assert screen.queue.cursor_id == ids[1]
        assert await state(ws, ids[1]) == "pending"
        await pilot.press("backspace", "u")
        assert [await state(ws, i) for i in ids] == ["pending"] * 3
        assert screen.queue.cursor_id == ids[0], "an undone decision comes back into the queue"
        await pilot.press("U", "U", "U")
        assert [await state(ws, i) for i in ids] == ["approved", "rejected", "approved"]


async def test_a_rejection_can_have_a_reason(app: HafsApp, ws: Workspace) -> None:
    first, second = await put_samples(ws, ["first", "second"])
    async with app.run_test() as pilot:
        await open_review(app, pilot, 2)
        await pilot.press("X")
        await until(lambda: isinstance(app.screen, Choice), pilot)
        await pilot.press("2")
        await until(lambda: isinstance(app.screen, ReviewScreen), pilot)
        await until_log(ws, second, [("reject", ws.settings.review.reasons[1], None)], pilot)
        await pilot.press("X")
        await until(lambda: isinstance(app.screen, Choice), pilot)
        await pilot.press("o")
        await until(lambda: isinstance(app.screen, Form), pilot)
        await pilot.press(*"bad", "enter")
        await until_log(ws, first, [("reject", "bad", None)], pilot)


async def test_r_and_a_digit_rate_the_sample_in_hand(app: HafsApp, ws: Workspace) -> None:
    (sample_id,) = await put_samples(ws, ["only"])
    async with app.run_test() as pilot:
        await open_review(app, pilot, 1)
        await pilot.press("r", "9", "escape", "r", "4")
        await until_log(ws, sample_id, [("rate", None, 4)], pilot)
        assert isinstance(app.screen, ReviewScreen), "a digit opened another mode"
        (rated,) = await decisions.of_sample(ws.db, sample_id)
        assert rated.guidelines == guidelines.current(ws).hash
        assert await guidelines.kept(ws.db, rated.guidelines) == guidelines.current(ws).text


async def test_the_answer_is_edited_in_the_persons_own_editor(
    app: HafsApp, ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sample_id,) = await put_samples(ws, ["lda #$00"])
    script = tmp_path / "editor.py"
    script.write_text("import sys, pathlib\npathlib.Path(sys.argv[1]).write_text('stz $00\\n')\n")
    monkeypatch.setenv("VISUAL", f"{sys.executable} {script}")
    async with app.run_test(notifications=True) as pilot:
        screen = await open_review(app, pilot, 1)
        await until(lambda: screen._cards, pilot)
        assert app._driver is not None
        monkeypatch.setattr(type(app._driver), "can_suspend", True)
        await pilot.press("ctrl+e")
        await until(lambda: "stz $00" in text_of(screen.query_one(CodeView)), pilot)
        sample = await samples.by_id(ws.db, sample_id)
        assert sample is not None
        assert (sample.output, sample.revision) == ("stz $00", 2)
        monkeypatch.setenv("VISUAL", "/no/such/editor")
        await pilot.press("ctrl+e")
        await until(lambda: any("Set EDITOR" in n.message for n in app._notifications), pilot)


async def test_all_that_the_filter_shows_is_decided_counted_first_and_undone_in_one_step(
    app: HafsApp, ws: Workspace
) -> None:
    await put_samples(ws, [f"sample {n}" for n in range(30)])
    async with app.run_test() as pilot:
        screen = await open_review(app, pilot, 30)
        screen.set_filter(Filter(states=("pending",), domain="asm"))
        await until(lambda: screen.queue.row_count == 15, pilot)
        await pilot.press("A")
        await until(lambda: isinstance(app.screen, Choice), pilot)
        await until(lambda: "approve 15 samples" in dialog_text(app), pilot)
        await pilot.press("x")
        await until(lambda: screen.queue.row_count == 0, pilot)
        assert await ws.db.fetch_value("SELECT count(*) FROM samples WHERE state = 'rejected'") == 15
        await pilot.press("ctrl+u")
        await until(lambda: isinstance(app.screen, Confirm), pilot)
        await pilot.press("y")
        await until(lambda: screen.queue.row_count == 15, pilot)
        assert await ws.db.fetch_value("SELECT count(*) FROM samples WHERE state = 'pending'") == 30


async def test_copying_guidelines_and_long_lines(app: HafsApp, ws: Workspace) -> None:
    await put_samples(ws, ["word " * 60 + "finis"])
    ws.config.mkdir(exist_ok=True)
    (ws.config / guidelines.NAME).write_text("only the best")
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_review(app, pilot, 1)
        card = screen.query_one(CodeView)
        await until(lambda: "finis" in text_of(card), pilot)
        await pilot.press("c")
        assert app.clipboard.endswith("word finis")
        await pilot.press("w")
        await until(lambda: "finis" not in text_of(card), pilot)
        card.scroll_to(x=10_000, animate=False)
        await until(lambda: "word finis" in text_of(card), pilot)
        await pilot.press("i")
        await until(lambda: isinstance(app.screen, Report), pilot)
        await until(lambda: "only the best" in text_of(app.screen.query_one(CodeView)), pilot)


async def test_an_edit_is_a_new_revision(app: HafsApp, ws: Workspace) -> None:
    (sample_id,) = await put_samples(ws, ["lda #$00"])
    async with app.run_test() as pilot:
        screen = await open_review(app, pilot, 1)
        await until(lambda: screen._cards, pilot)
        await pilot.press("e")
        await until(lambda: isinstance(app.screen, Form), pilot)
        app.screen.query(TextArea)[-1].text = "stz $00"
        await pilot.press("ctrl+s")
        await until(lambda: isinstance(app.screen, ReviewScreen), pilot)
        sample = await samples.by_id(ws.db, sample_id)
        assert sample is not None
        assert (sample.output, sample.revision) == ("stz $00", 2)
        await until(lambda: "stz $00" in text_of(screen.query_one(CodeView)), pilot)


async def test_an_edit_that_is_refused_keeps_what_was_typed(app: HafsApp, ws: Workspace) -> None:
    await put_samples(ws, ["lda #$00"])
    async with app.run_test() as pilot:
        screen = await open_review(app, pilot, 1)
        await until(lambda: screen._cards, pilot)
        await pilot.press("e")
        await until(lambda: isinstance(app.screen, Form), pilot)
        await pilot.press("ctrl+s")
        bottom = app.screen.query_one(".wrong-form")
        await until(lambda: "changes nothing" in str(bottom.render()), pilot)
        assert app.screen.query(TextArea)[-1].text == "lda #$00"


async def test_a_filter_finds_words_and_states(app: HafsApp, ws: Workspace) -> None:
    ids = await put_samples(ws, ["clear the accumulator", "wait for vblank", "vblank handler"])
    await deciding.reject(ws, ids[2])
    async with app.run_test() as pilot:
        screen = await open_review(app, pilot, 2)
        await pilot.press("slash")
        await until(lambda: isinstance(app.screen, Form), pilot)
        app.screen.query(Input).first().value = "vblank"
        await pilot.press("enter")
        await until(lambda: list(screen.queue.ids) == [ids[1]], pilot)
        await until(lambda: "“vblank”" in screen.query_one("#standing").render_line(0).text, pilot)
        await pilot.press("escape")
        await until(lambda: screen.queue.row_count == 2, pilot)


async def test_a_decision_of_another_app_shows_in_place(app: HafsApp, ws: Workspace) -> None:
    ids = await put_samples(ws, ["one", "two"])
    async with app.run_test() as pilot:
        screen = await open_review(app, pilot, 2)
        await deciding.approve(ws, ids[0], reviewer="someone else")
        await until(lambda: "✓" in screen.queue.render_line(2).text, pilot)
        assert screen.queue.row_count == 2, "the queue changed under the reviewer's hands"


@pytest.mark.parametrize("key", ["a", "x", "f", "space", "e"])
async def test_keys_on_an_empty_queue_do_nothing(app: HafsApp, ws: Workspace, key: str) -> None:
    async with app.run_test() as pilot:
        await pilot.press("3", key)
        await pilot.pause()
        assert isinstance(app.screen, ReviewScreen)
        assert await ws.db.fetch_value("SELECT count(*) FROM decisions") == 0
