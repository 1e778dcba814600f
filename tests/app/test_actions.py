"""The action table feeds keys, footer, help and palette, and none of them can disagree with the screens."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from textual.binding import Binding
from textual.command import CommandPalette
from textual.widgets import Input

from backend.settings import open_workspace
from hafs_tui.actions import ACTIONS, MODES, of_group
from hafs_tui.app import HafsApp
from hafs_tui.background import Background
from hafs_tui.keymap import collisions, default_keys, make_keymap
from hafs_tui.screens import mode_screens
from hafs_tui.widgets.bars import KeyBar
from hafs_tui.widgets.help_screen import HelpScreen
from hafs_tui.widgets.rows import RowView
from tests.app.conftest import until


def test_default_keys_do_not_collide() -> None:
    assert collisions(default_keys()) == []


def test_no_action_has_a_key_that_moves_in_lists() -> None:
    moving = {key for binding in RowView.BINDINGS for key in cast("Binding", binding).key.split(",")}
    taken = {name: moving & set(keys) for name, keys in default_keys().items() if moving & set(keys)}
    assert taken == {}


@pytest.mark.parametrize("mode", [mode.id for mode in MODES])
def test_every_action_of_a_mode_is_performed_by_its_screen(mode: str) -> None:
    screen = mode_screens()[mode]
    missing = [action.id for action in of_group(mode) if not hasattr(screen, f"do_{action.name}")]
    assert missing == []


def test_every_action_of_the_app_is_performed_by_it() -> None:
    assert [a.id for a in of_group("app") if not hasattr(HafsApp, f"do_{a.name}")] == []
    assert {action.group for action in ACTIONS} <= {"app", *(mode.id for mode in MODES)}


def test_remapping_moves_swaps_and_reports() -> None:
    keymap = make_keymap({"review.approve": "y", "review.reject": "ctrl+x,delete"})
    assert keymap.keys["review.approve"] == ("y",)
    assert keymap.keys["review.reject"] == ("ctrl+x", "delete")
    assert keymap.problems == ()
    swapped = make_keymap({"review.approve": "x", "review.reject": "a"})
    assert (swapped.keys["review.approve"], swapped.keys["review.reject"]) == (("x",), ("a",))
    assert swapped.problems == ()


def test_a_collision_or_an_unknown_action_is_told_and_left_out() -> None:
    keymap = make_keymap({"review.approve": "x", "review.fly": "z", "app.help": "3"})
    assert keymap.keys["review.approve"] == ("a",)
    assert keymap.keys["app.help"] == ("question_mark", "f1")
    assert "quits, from anywhere" in make_keymap({"app.theme": "ctrl+q"}).problems[0]
    told = "\n".join(keymap.problems)
    assert "'review.approve' cannot have 'x': 'review.reject' has it" in told
    assert "'review.fly'" in told
    assert "'app.help' cannot have '3': 'mode.review' has it" in told


async def test_remapped_keys_work_and_are_shown(tmp_path: Path, background: Background) -> None:
    settings = tmp_path / "config" / "settings.toml"
    settings.parent.mkdir()
    settings.write_text('[app.keys]\n"mode.review" = "ctrl+g"\n"app.help" = "f9"\n')
    async with open_workspace(tmp_path) as ws:
        await check_remapped(HafsApp(ws, background))


async def check_remapped(app: HafsApp) -> None:
    async with app.run_test() as pilot:
        await pilot.press("3")
        assert app.current_mode == "overview"
        await pilot.press("ctrl+g")
        assert app.current_mode == "review"
        await pilot.press("f9")
        await until(lambda: isinstance(app.screen, HelpScreen), pilot)
        assert "^g" in str(app.screen.query_one("Static").render())


async def test_an_impossible_action_says_why(app: HafsApp) -> None:
    async with app.run_test(notifications=True) as pilot:
        await pilot.press("3")
        await pilot.press("a")
        await until(lambda: app._notifications, pilot)
        assert "no sample is selected" in next(iter(app._notifications)).message
        bar = app.screen.query_one(KeyBar)
        assert "(a Approve)" in bar.render_line(0).text


async def test_help_lists_each_key_and_reason(app: HafsApp) -> None:
    async with app.run_test() as pilot:
        await pilot.press("3", "question_mark")
        await until(lambda: isinstance(app.screen, HelpScreen), pilot)
        text = str(app.screen.query_one("Static").render())
        for action in of_group("review"):
            assert action.label in text
        assert "Not now: no sample is selected" in text
        await pilot.press("escape")
        assert not isinstance(app.screen, HelpScreen)


async def test_the_palette_opens_modes_and_performs_actions(app: HafsApp) -> None:
    async with app.run_test() as pilot:
        await pilot.press("ctrl+p")
        await until(lambda: isinstance(app.screen, CommandPalette), pilot)
        app.screen.query_one(Input).value = "Open Training"
        await until(lambda: app.screen.query_one("OptionList").option_count == 1, pilot)  # type: ignore[attr-defined]
        await pilot.press("enter")
        await until(lambda: app.current_mode == "training", pilot)
