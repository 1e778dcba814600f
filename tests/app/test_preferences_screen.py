"""The Preferences screen: a blind choice by one key, taken back at will, and pairs from a model or a file."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion
from textual.pilot import Pilot
from textual.widgets import Input

from backend.preferences.reviewing import view
from backend.review import deciding
from backend.settings import Workspace, open_workspace
from backend.store import pairs
from backend.store.pairs import Pair
from hafs_tui.app import HafsApp
from hafs_tui.background import Background
from hafs_tui.screens.preferences import PreferencesScreen
from hafs_tui.widgets.code_view import CodeView
from hafs_tui.widgets.form import FieldRow, Form
from tests.app.conftest import SIZES, until
from tests.app.looks import frozen, look, shown
from tests.app.stages import put_pairs
from tests.app.world import put_samples
from tests.servers.openai_server import OpenAIServer

__all__ = ["frozen"]


async def open_preferences(app: HafsApp, pilot: Pilot[None], rows: int) -> PreferencesScreen:
    await pilot.press("4")
    screen = app.screen
    assert isinstance(screen, PreferencesScreen)
    await until(lambda: screen.snapshot and screen.pairs.row_count == rows, pilot)
    return screen


async def pair(ws: Workspace, identifier: int) -> Pair:
    found = await pairs.by_id(ws.db, identifier)
    assert found is not None
    return found


def fill(app: HafsApp, **values: str) -> None:
    """Write into the text fields of the open form."""
    rows = {row.described.name: row.editor for row in app.screen.query(FieldRow)}
    for name, value in values.items():
        editor = rows[name]
        assert isinstance(editor, Input)
        editor.value = value


@SIZES
async def test_a_choice_is_blind_and_the_next_pair_is_there(
    app: HafsApp, ws: Workspace, size: tuple[int, int]
) -> None:
    ids = await put_pairs(ws, 5)
    async with app.run_test(size=size) as pilot:
        screen = await open_preferences(app, pilot, 5)
        left, right = screen.query_one("#left", CodeView), screen.query_one("#right", CodeView)
        first = await view(ws, ids[0])
        await until(lambda: first.left.splitlines()[0] in shown(left), pilot)
        assert first.right.splitlines()[0] in shown(right)
        assert "chosen" not in shown(left) + shown(right), "the scorer's word is given away"
        side_by_side = left.region.y == right.region.y
        assert side_by_side == (size[0] >= 100)
        await pilot.press("h", "l", "t", "b")
        await until(lambda: screen.pairs.cursor_id == ids[4], pilot)
        assert [(await pair(ws, i)).state for i in ids] == ["decided", "decided", "tie", "bad", "pending"]
        assert (await pair(ws, ids[0])).chosen == first.left
        await until(lambda: "5 of 5" in shown(screen.query_one("#standing")), pilot)


async def test_a_choice_is_taken_back_without_limit(app: HafsApp, ws: Workspace) -> None:
    ids = await put_pairs(ws, 3)
    before = [(await pair(ws, i)).chosen for i in ids]
    async with app.run_test() as pilot:
        screen = await open_preferences(app, pilot, 3)
        await pilot.press("left", "right", "t")
        await until(lambda: screen.pairs.row_count == 0, pilot)
        await pilot.press("u", "backspace", "u")
        await until(lambda: screen.pairs.cursor_id == ids[0], pilot)
        found = [await pair(ws, i) for i in ids]
        assert [p.state for p in found] == ["pending"] * 3
        assert [p.chosen for p in found] == before


async def test_a_decided_pair_is_shown_with_its_choice(app: HafsApp, ws: Workspace) -> None:
    await put_pairs(ws, 1)
    async with app.run_test() as pilot:
        screen = await open_preferences(app, pilot, 1)
        await pilot.press("h")
        await until(lambda: screen.pairs.row_count == 0, pilot)
        await pilot.press("slash")
        await until(lambda: isinstance(app.screen, Form), pilot)
        rows = {row.described.name: row for row in app.screen.query(FieldRow)}
        rows["state"].fill("")
        await pilot.press("ctrl+s")
        await until(lambda: "✓ chosen" in shown(screen.query_one("#left")), pilot)


async def test_pairs_come_from_a_file_and_go_into_one(app: HafsApp, ws: Workspace, tmp_path: Path) -> None:
    source, target = tmp_path / "given.jsonl", tmp_path / "out.jsonl"
    rows = [{"prompt": f"p{n}", "chosen": f"good {n}", "rejected": f"poor {n}"} for n in range(3)]
    source.write_text("\n".join(json.dumps(row) for row in rows) + "\nnot json\n")
    async with app.run_test(notifications=True) as pilot:
        screen = await open_preferences(app, pilot, 0)
        await pilot.press("i")
        await until(lambda: isinstance(app.screen, Form), pilot)
        fill(app, path=str(source))
        await pilot.press("ctrl+s")
        await until(lambda: screen.pairs.row_count == 3, pilot)
        assert any("3 new" in note.message and "1 bad" in note.message for note in app._notifications)
        first = await view(ws, screen.pairs.ids[0])
        await pilot.press("h")
        await pilot.press("e")
        await until(lambda: isinstance(app.screen, Form), pilot)
        fill(app, path=str(target))
        await pilot.press("ctrl+s")
        await until(target.exists, pilot)
        (written,) = [json.loads(line) for line in target.read_text().splitlines()]
        assert written["chosen"] == first.left


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[tuple[Workspace, OpenAIServer]]:
    """A workspace whose OpenAI is a server that is right every other time."""
    turns = itertools.count()

    def reply(prompt: str) -> str:
        return prompt.split()[-1] if next(turns) % 2 else "something else"

    async with OpenAIServer(reply=reply) as server:
        config = tmp_path / "asked" / "config"
        config.mkdir(parents=True)
        (config / "settings.toml").write_text(
            f'[providers.openai]\nbase_url = "{server.base_url}"\nparallel = 1\n'
        )
        async with open_workspace(tmp_path / "asked") as ws:
            yield ws, server


async def test_pairs_are_generated_from_a_form(
    asked: tuple[Workspace, OpenAIServer], background: Background
) -> None:
    ws, server = asked
    for sample in await put_samples(ws, [f"echo{n}" for n in range(4)]):
        await deciding.approve(ws, sample)
    app = HafsApp(ws, background)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        screen = await open_preferences(app, pilot, 0)
        await pilot.press("n")
        await until(lambda: isinstance(app.screen, Form), pilot)
        fill(app, model="api:openai/test-model", num_samples="4", candidates="2", batch="first")
        await pilot.press("ctrl+s")
        await until(lambda: app.screen is screen, pilot)
        await until(lambda: screen.pairs.row_count == 4, pilot)
        assert len(server.paid) == 8
        assert any("first: 4 pairs of 8 candidates" in note.message for note in app._notifications)
        await until(lambda: "first: 4 pairs of 8 candidates" in shown(screen.query_one("#standing")), pilot)


@pytest.mark.parametrize("key", ["h", "l", "t", "b", "space", "u"])
async def test_keys_on_an_empty_list_do_nothing(app: HafsApp, ws: Workspace, key: str) -> None:
    async with app.run_test() as pilot:
        screen = await open_preferences(app, pilot, 0)
        await pilot.press(key)
        await pilot.pause()
        assert app.screen is screen
        assert await ws.db.fetch_value("SELECT count(*) FROM pair_decisions") == 0


@SIZES
async def test_how_it_looks(
    app: HafsApp, ws: Workspace, size: tuple[int, int], snapshot: SnapshotAssertion, frozen: None
) -> None:
    await put_pairs(ws)
    async with app.run_test(size=size) as pilot:
        screen = await open_preferences(app, pilot, 3)
        await until(lambda: "lda $01" in shown(screen.query_one("#right")), pilot)
        await look(pilot, snapshot)
