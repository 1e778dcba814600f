"""The app as a whole: modes, themes, a small terminal, no colours, and news from the database."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.color import Color

from backend.settings import Workspace
from backend.store import open_database
from hafs_tui.actions import MODES
from hafs_tui.app import HafsApp
from hafs_tui.background import Background
from hafs_tui.crash import mask_secrets, write_crash
from hafs_tui.mode_screen import ModeScreen
from hafs_tui.themes import DARK, LIGHT, PAIRS, colour
from hafs_tui.widgets.too_small import TooSmall
from tests.app.conftest import SIZES, until


@SIZES
async def test_each_mode_opens_by_its_digit_and_its_letter(app: HafsApp, size: tuple[int, int]) -> None:
    async with app.run_test(size=size) as pilot:
        for mode in MODES:
            for key in mode.keys.split(","):
                await pilot.press("1" if mode.id != "overview" else "2")
                await pilot.press(key)
                assert app.current_mode == mode.id
                assert app.mode_screen is app.screen
        bar = app.screen.query_one("TitleBar").render_line(0).text
        assert all(mode.short[:4] in bar for mode in MODES)


async def test_a_small_terminal_is_told_and_cured_by_growing(app: HafsApp) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        for width, height in ((79, 24), (1, 1), (20, 3), (200, 23)):
            await pilot.resize_terminal(width, height)
            await until(lambda: isinstance(app.screen, TooSmall), pilot)
            await pilot.press("2")
        text = str(app.screen.query_one("Static").render())
        assert "200x23" in text
        assert "80x24" in text
        await pilot.resize_terminal(80, 24)
        await until(lambda: not isinstance(app.screen, TooSmall), pilot)
        await pilot.press("2")
        assert app.current_mode == "campaigns"


@pytest.mark.parametrize("theme", [DARK, LIGHT], ids=lambda theme: theme.name)
def test_every_text_of_a_theme_can_be_read_on_its_ground(theme: object) -> None:
    low = {}
    for text, ground in PAIRS:
        ratio = contrast(colour(theme, text), colour(theme, ground))  # type: ignore[arg-type]
        if ratio < 4.5:
            low[text, ground] = round(ratio, 2)
    assert low == {}


def contrast(first: str, second: str) -> float:
    """WCAG 2 contrast ratio."""

    def luminance(name: str) -> float:
        parts = [value / 255 for value in Color.parse(name).rgb]
        red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


async def test_the_theme_switches(app: HafsApp) -> None:
    async with app.run_test() as pilot:
        assert app.theme == DARK.name
        await pilot.press("ctrl+t")
        assert app.theme == LIGHT.name


async def test_a_commit_of_another_connection_is_news_to_the_open_screen(
    app: HafsApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    original = ModeScreen.read_again

    def counted(screen: ModeScreen[object]) -> None:
        read.append(screen.GROUP)
        original(screen)

    async with app.run_test() as pilot:
        await pilot.press("3", "2")
        await until(lambda: app.current_mode == "campaigns", pilot)
        await pilot.pause(0.3)
        monkeypatch.setattr(ModeScreen, "read_again", counted)
        other = await open_database(tmp_path / "training" / "hafs.db")
        async with other.transaction() as transaction:
            await transaction.execute("UPDATE change_sequence SET value = value + 1")
        await other.close()
        await until(lambda: read, pilot)
        assert set(read) == {"campaigns"}, "a hidden screen read its rows"


async def test_no_color_leaves_no_colour(
    ws: Workspace, background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = HafsApp(ws, background)
    async with app.run_test() as pilot:
        await pilot.press("3")
        seen = {
            colour_
            for strip in app.screen._compositor.render_strips()
            for segment in strip
            if segment.style is not None
            for colour_ in (segment.style.color, segment.style.bgcolor)
            if colour_ is not None and colour_.triplet is not None and len(set(colour_.triplet)) > 1
        }
        assert seen == set()


def test_a_crash_log_holds_the_traceback_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "AIza-very-secret-value")
    hidden_local = "a local that stays out"
    try:
        raise RuntimeError("call failed: key=AIza-very-secret-value Authorization: Bearer abcdef123456")
    except RuntimeError as error:
        log = write_crash(error, tmp_path / "logs").read_text()
    assert "RuntimeError" in log
    assert "test_app.py" in log
    assert "very-secret" not in log
    assert "abcdef123456" not in log
    assert log.count(hidden_local) == 0 or f"hidden_local = {hidden_local!r}" not in log
    assert mask_secrets("nothing here") == "nothing here"


async def test_quitting_works_in_a_terminal_that_is_too_small(app: HafsApp) -> None:
    async with app.run_test(size=(40, 10)) as pilot:
        await until(lambda: isinstance(app.screen, TooSmall), pilot)
        await pilot.press("ctrl+q")
        await until(lambda: app.return_code == 0, pilot)
