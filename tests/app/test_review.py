"""The reviewer: decisions by key, on disk before the next key, undone without limit, in any queue."""

from __future__ import annotations

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, TextArea

from backend.review import deciding
from backend.settings import Workspace
from backend.store import decisions, samples
from hafs_tui.app import HafsApp
from hafs_tui.screens.review import ReviewScreen
from hafs_tui.widgets.code_view import CodeView
from hafs_tui.widgets.form import Form
from tests.app.conftest import SIZES, until
from tests.app.world import put_samples


def text_of(view: CodeView) -> str:
    return "\n".join(view.render_line(y).text for y in range(view.size.height))


async def open_review(app: HafsApp, pilot: Pilot[None], rows: int) -> ReviewScreen:
    await pilot.press("3")
    screen = app.screen
    assert isinstance(screen, ReviewScreen)
    await until(lambda: screen.queue.row_count == rows and screen.snapshot, pilot)
    return screen


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
    (sample_id,) = await put_samples(ws, ["only"])
    async with app.run_test() as pilot:
        await open_review(app, pilot, 1)
        await pilot.press("X")
        await until(lambda: isinstance(app.screen, Form), pilot)
        await pilot.press(*"bad", "enter")
        await until(lambda: isinstance(app.screen, ReviewScreen), pilot)
        log = await decisions.of_sample(ws.db, sample_id)
        assert [(d.kind, d.reason) for d in log] == [("reject", "bad")]


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
