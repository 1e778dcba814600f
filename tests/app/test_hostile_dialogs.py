"""Dialogs of the later stages over hostile rows: nothing acts, nothing is markup, nothing crashes."""

from __future__ import annotations

import unicodedata

import pytest
from textual.screen import ModalScreen

from backend.settings import Workspace
from hafs_tui.app import HafsApp
from tests.app.conftest import until
from tests.app.payloads import EVERYTHING
from tests.app.world import put_world

DIALOGS = ("4n", "4e", "4/", "5p", "5x", "6n", "6c", "6o", "7n", "7f", "7o", "7x", "7r", "8c", "8x", "8l")


def acting(app: HafsApp) -> set[str]:
    """Characters on the screen that a terminal would act on."""
    return {
        f"{ord(character):04X}"
        for strip in app.screen._compositor.render_strips()
        for segment in strip
        for character in segment.text
        if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp")
    }


@pytest.mark.parametrize("keys", DIALOGS)
async def test_a_dialog_shows_hostile_rows_harmlessly(app: HafsApp, ws: Workspace, keys: str) -> None:
    await put_world(ws, EVERYTHING.encode("utf-8", "replace").decode())
    async with app.run_test(size=(100, 30), notifications=True) as pilot:
        mode, action = keys
        await pilot.press(mode)
        await until(lambda: app.mode_screen is not None and app.mode_screen.snapshot, pilot)
        await pilot.pause()
        await pilot.press("slash" if action == "/" else action)
        await until(lambda: isinstance(app.screen, ModalScreen) or app._notifications, pilot)
        await pilot.pause()
        assert acting(app) == set()
        await pilot.press("escape")
        await until(lambda: not isinstance(app.screen, ModalScreen), pilot)
        assert acting(app) == set()
