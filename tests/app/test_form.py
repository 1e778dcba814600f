"""Forms by keyboard alone: typed answers, errors at their field, and nothing lost when the backend refuses."""

from __future__ import annotations

import pytest
from textual.widgets import Button, Checkbox, Input, Select, SelectionList

from hafs_tui.app import HafsApp
from hafs_tui.widgets.confirm import Confirm
from hafs_tui.widgets.form import Answers, Field, FieldError, FieldRow, Form, Kind, parse
from tests.app.conftest import SIZES, until
from tests.app.payloads import EVERYTHING, PAYLOADS

FIELDS = (
    Field("name", "Name"),
    Field("count", "Count", Kind.INT, 5, minimum=1, maximum=100),
    Field("rate", "Rate", Kind.FLOAT, required=False),
    Field("on", "On", Kind.BOOL, True),
    Field("one", "One of", Kind.CHOICE, "b", choices=[("a", "first"), ("b", "second")]),
    Field("some", "Some of", Kind.CHOICES, ("x",), choices=[("x", "ex"), ("y", "why")]),
)


def unprintable(app: HafsApp) -> set[str]:
    """Characters on the screen that are not plain text."""
    strips = app.screen._compositor.render_strips()
    return {c for strip in strips for segment in strip for c in segment.text if not c.isprintable()}


async def whole(answers: Answers) -> Answers:
    return answers


def note(form: Form[Answers], name: str) -> str:
    row = next(row for row in form.query(FieldRow) if row.described.name == name)
    return str(row.query_one(".note").render())


@SIZES
async def test_a_form_is_filled_and_sent_by_keyboard(app: HafsApp, size: tuple[int, int]) -> None:
    got: list[Answers | None] = []
    async with app.run_test(size=size) as pilot:
        form = Form("Test", FIELDS, whole)
        app.push_screen(form, got.append)
        await until(lambda: isinstance(app.focused, Input), pilot)
        await pilot.press(*"alpha", "enter")
        await pilot.press("backspace", *"42", "enter")
        await pilot.press(*"2e-4", "enter", "space", "tab", "tab")
        assert isinstance(app.focused, SelectionList)
        await pilot.press("down", "space", "ctrl+s")
        await until(lambda: got, pilot)
        answers = got[0]
        assert answers is not None
        assert answers.text("name") == "alpha"
        assert answers.integer("count") == 42
        assert answers.number("rate") == pytest.approx(2e-4)
        assert answers.flag("on") is False
        assert answers.text("one") == "b"
        assert set(answers.several("some")) == {"x", "y"}


async def test_what_is_wrong_is_said_at_its_field_and_the_first_gets_the_focus(app: HafsApp) -> None:
    got: list[Answers | None] = []
    async with app.run_test() as pilot:
        form = Form("Test", FIELDS, whole)
        app.push_screen(form, got.append)
        await until(lambda: isinstance(app.focused, Input), pilot)
        inputs = list(form.query(Input))
        inputs[0].value, inputs[1].value, inputs[2].value = "ok", "500", "much"
        await pilot.press("ctrl+s")
        await until(lambda: "at most 100" in note(form, "count"), pilot)
        assert "a number, such as" in note(form, "rate")
        assert app.focused is inputs[1]
        assert got == []
        inputs[1].value, inputs[2].value = "7", ""
        await pilot.press("ctrl+s")
        await until(lambda: got, pilot)
        assert got[0] is not None
        assert got[0].optional_number("rate") is None


async def test_a_refusal_of_the_backend_is_told_and_nothing_typed_is_lost(app: HafsApp) -> None:
    answers_seen: list[str] = []

    async def refuse(answers: Answers) -> str:
        answers_seen.append(answers.text("name"))
        if len(answers_seen) == 1:
            raise FieldError("name", "a campaign of this name exists")
        if len(answers_seen) == 2:
            raise ValueError("the disk is full: free some space")
        return "made"

    got: list[str | None] = []
    async with app.run_test() as pilot:
        form = Form("Test", FIELDS, refuse)
        app.push_screen(form, got.append)
        await until(lambda: isinstance(app.focused, Input), pilot)
        await pilot.press(*"abc", "ctrl+s")
        await until(lambda: "exists" in note(form, "name"), pilot)  # type: ignore[arg-type]
        await pilot.press("ctrl+s")
        bottom = form.query_one(".wrong-form")
        await until(lambda: "the disk is full" in str(bottom.render()), pilot)
        assert form.query(Input).first().value == "abc"
        await pilot.press("ctrl+s")
        await until(lambda: got == ["made"], pilot)


async def test_escape_leaves_without_a_result(app: HafsApp) -> None:
    got: list[Answers | None] = []
    async with app.run_test() as pilot:
        app.push_screen(Form("Test", FIELDS, whole), got.append)
        await until(lambda: isinstance(app.focused, Input), pilot)
        await pilot.press(*"abc", "escape")
        await until(lambda: got == [None], pilot)


async def test_hostile_text_in_a_form_is_only_text(app: HafsApp) -> None:
    choices = [(str(n), payload) for n, payload in enumerate(PAYLOADS)]
    fields = (
        Field(EVERYTHING, EVERYTHING, default=EVERYTHING, help=EVERYTHING),
        Field("long", "Long", Kind.LONG_TEXT, EVERYTHING),
        Field("one", "One", Kind.CHOICE, "1", choices=choices),
        Field("some", "Some", Kind.CHOICES, choices=choices, required=False),
    )
    async with app.run_test(size=(100, 40)) as pilot:
        app.push_screen(Form(EVERYTHING, fields, whole))
        await until(lambda: isinstance(app.focused, Input), pilot)
        app.screen.query_one(Select).expanded = True
        await pilot.pause()
        assert unprintable(app) == set()
        await pilot.press("escape", "escape")
        app.push_screen(Confirm(EVERYTHING))
        await until(lambda: isinstance(app.focused, Button), pilot)
        assert unprintable(app) == set()


@pytest.mark.parametrize(("keys", "answer"), [("enter", False), ("y", True), ("n", False), ("escape", False)])
async def test_enter_alone_confirms_nothing(app: HafsApp, keys: str, answer: bool) -> None:
    got: list[bool | None] = []
    async with app.run_test() as pilot:
        app.push_screen(Confirm("Really?"), got.append)
        await until(lambda: isinstance(app.screen, Confirm), pilot)
        await pilot.press(keys)
        await until(lambda: got == [answer], pilot)


def test_parse_says_what_it_wants() -> None:
    with pytest.raises(ValueError, match="a whole number"):
        parse(Field("n", "N", Kind.INT), "1.5")
    with pytest.raises(ValueError, match="finite"):
        parse(Field("n", "N", Kind.FLOAT), "nan")
    with pytest.raises(ValueError, match="odd"):
        parse(Field("n", "N", Kind.INT, check=lambda v: None if v == 2 else "odd"), "3")
    assert parse(Field("n", "N", Kind.INT), "1,500") == 1500
    assert parse(Field("n", "N", required=False), "  ") == ""
    assert Checkbox("x").value is False
