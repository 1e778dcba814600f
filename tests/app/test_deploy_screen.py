"""The Deploy screen: a chat that streams, deployments made from forms, and a served model that ends with the app."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion
from textual.pilot import Pilot
from textual.widgets import Input

from backend.providers.embedded import bundled_gguf
from backend.settings import Workspace
from backend.store import deployments, models
from hafs_tui.app import HafsApp
from hafs_tui.background import Background
from hafs_tui.screens.conversation import ChatPane
from hafs_tui.screens.deploy import DeployScreen
from hafs_tui.widgets.code_view import CodeView
from hafs_tui.widgets.confirm import Confirm
from hafs_tui.widgets.form import FieldRow, Form
from hafs_tui.widgets.table import Table
from tests.app.conftest import SIZES, until
from tests.app.looks import frozen, look, shown
from tests.app.stages import put_models
from tests.servers.faults import in_order, status
from tests.servers.ollama_server import OllamaServer
from tests.servers.openai_server import OpenAIServer

__all__ = ["frozen"]


async def open_deploy(app: HafsApp, pilot: Pilot[None]) -> DeployScreen:
    await pilot.press("7")
    screen = app.screen
    assert isinstance(screen, DeployScreen)
    await until(lambda: screen.snapshot, pilot)
    return screen


def fill(app: HafsApp, **values: str) -> None:
    """Write into the text fields of the open form."""
    rows = {row.described.name: row.editor for row in app.screen.query(FieldRow)}
    for name, value in values.items():
        editor = rows[name]
        assert isinstance(editor, Input)
        editor.value = value


@pytest.fixture
async def talking(ws: Workspace) -> AsyncIterator[OpenAIServer]:
    """A deployment `coder` that is served elsewhere, and fails at its first question."""
    refused = in_order(None, status(400, message="the model is asleep"))
    async with OpenAIServer(reply=lambda prompt: f"lda [{prompt}]\x1b[31m", script=refused) as server:
        async with ws.db.transaction() as t:
            number = await deployments.insert(
                t, name="coder", kind="vllm", model="run:pilot", host="local", details="{}"
            )
            await deployments.update(t, number, "serving", endpoint=server.base_url)
        yield server


@SIZES
async def test_a_chat_streams_survives_an_error_and_is_rated(
    app: HafsApp, ws: Workspace, talking: OpenAIServer, size: tuple[int, int]
) -> None:
    async with app.run_test(size=size) as pilot:
        screen = await open_deploy(app, pilot)
        chat = screen.query_one("#chat", CodeView)
        await pilot.press("c", *"1one", "enter")
        await until(lambda: "lda [1one]␛[31m" in shown(chat), pilot)
        assert app.current_mode == "deploy", "a digit of the message changed the mode"
        await pilot.press("f2")
        await until(lambda: "✓ good" in shown(chat), pilot)
        await pilot.press(*"two", "enter")
        await until(lambda: "the model is asleep" in shown(chat), pilot)
        await pilot.press(*"three", "enter")
        await until(lambda: "lda [three]" in shown(chat), pilot)
        sent = [message["content"] for message in talking.paid[-1].body["messages"]]
        assert sent[0] == "1one", "the conversation is not remembered"
        assert "two" not in sent
        await pilot.press("escape", "minus")
        await until(lambda: "✗ bad" in shown(chat), pilot)
        rows = await ws.db.fetch_all("SELECT message, rating FROM exchanges ORDER BY id")
        assert [tuple(row) for row in rows] == [("1one", 1), ("three", -1)]


async def test_a_folder_is_deployed_stopped_and_rolled_back(
    app: HafsApp, ws: Workspace, tmp_path: Path
) -> None:
    weights, target = tmp_path / "weights", tmp_path / "out" / "helper"
    weights.mkdir()
    (weights / "config.json").write_text('{"model_type": "llama"}')
    (weights / "model.safetensors").write_bytes(b"first")
    async with ws.db.transaction() as t:
        await models.put(t, name="base", kind="base", location=str(weights), host="local")
    async with app.run_test(notifications=True) as pilot:
        screen = await open_deploy(app, pilot)
        for content in (b"first", b"second"):
            (weights / "model.safetensors").write_bytes(content)
            await pilot.press("f")
            await until(lambda: isinstance(app.screen, Form), pilot)
            fill(app, folder=str(target), unevaluated="a test")
            await pilot.press("ctrl+s")
            await until(lambda: app.screen is screen, pilot)
            await until(lambda c=content: (target / "model.safetensors").exists()  # type: ignore[misc]
                        and (target / "model.safetensors").read_bytes() == c, pilot)  # fmt: skip
            await until(lambda: not app.background.runs("folder of base"), pilot)
        table = screen.query_one("#deployments", Table)
        await until(lambda: table.row_count == 2 and "published" in shown(table), pilot)
        screen.query_one("#deployments").focus()
        await pilot.press("g", "r")
        await until(lambda: isinstance(app.screen, Confirm), pilot)
        await pilot.press("y")
        await until(lambda: (target / "model.safetensors").read_bytes() == b"first", pilot)
        await until(lambda: table.row_count == 3, pilot)
        await pilot.press("g", "x")
        await until(lambda: isinstance(app.screen, Confirm), pilot)
        await pilot.press("y")
        await until(lambda: "stopped" in shown(table), pilot)


async def test_an_ollama_tag_is_created_from_a_form(app: HafsApp, ws: Workspace, tmp_path: Path) -> None:
    gguf = tmp_path / "tiny.gguf"
    gguf.write_bytes(b"GGUF" + bytes(64))
    async with ws.db.transaction() as t:
        await models.put(t, name="tiny", kind="gguf", location=str(gguf), host="local")
    async with OllamaServer() as server, app.run_test(notifications=True) as pilot:
        screen = await open_deploy(app, pilot)
        await pilot.press("o")
        await until(lambda: isinstance(app.screen, Form), pilot)
        fill(app, tag="tiny:1b", base_url=server.url, unevaluated="a test")
        await pilot.press("ctrl+s")
        await until(lambda: "published" in shown(screen.query_one("#deployments", Table)), pilot)
        assert "tiny:1b" in server.created
        assert gguf.read_bytes() in server.blobs.values()


async def test_a_model_that_is_not_there_is_told_in_the_form(app: HafsApp, ws: Workspace) -> None:
    await put_models(ws)
    async with app.run_test() as pilot:
        await open_deploy(app, pilot)
        await pilot.press("n")
        await until(lambda: isinstance(app.screen, Form), pilot)
        fill(app, model="nothing")
        await pilot.press("ctrl+s")
        bottom = app.screen.query_one(".wrong-form")
        await until(lambda: "no model named 'nothing'" in str(bottom.render()), pilot)


async def test_a_served_model_answers_and_ends_with_the_app(ws: Workspace) -> None:
    async with Background() as background:
        app = HafsApp(ws, background)
        async with ws.db.transaction() as t:
            await models.put(t, name="small", kind="gguf", location=str(bundled_gguf()), host="local")
        async with app.run_test(size=(120, 40)) as pilot:
            screen = await open_deploy(app, pilot)
            await pilot.press("n")
            await until(lambda: isinstance(app.screen, Form), pilot)
            fill(app, name="helper", unevaluated="a test")
            await pilot.press("ctrl+s")
            table, chat = screen.query_one("#deployments", Table), screen.query_one("#chat", CodeView)
            await until(lambda: "serving" in shown(table), pilot, 90)
            await pilot.press("c", *"Hello", "enter")
            pane = screen.query_one(ChatPane)
            await until(lambda: pane.conversation and pane.conversation.turns[0].state == "done", pilot, 90)
            assert pane.conversation is not None
            last_word = pane.conversation.turns[0].reply.split()[-1]
            await until(lambda: last_word in shown(chat), pilot)
    (row,) = await deployments.every(ws.db)
    assert row.state == "stopped"


@SIZES
async def test_how_it_looks(
    app: HafsApp, ws: Workspace, size: tuple[int, int], snapshot: SnapshotAssertion, frozen: None
) -> None:
    await put_models(ws)
    async with app.run_test(size=size) as pilot:
        screen = await open_deploy(app, pilot)
        await until(lambda: "comes from" in shown(screen.query_one("#lineage")), pilot)
        await look(pilot, snapshot)
