"""The Hosts screen: readings, jobs that really run here, and a host that is met for the first time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion
from textual.pilot import Pilot
from textual.widgets import Input

from backend.hosts.catalog import list_hosts
from backend.settings import Workspace
from backend.store import jobs
from hafs_tui.app import HafsApp
from hafs_tui.screens.hosts import HostsScreen
from hafs_tui.screens.job_log import JobLog
from hafs_tui.widgets.code_view import CodeView
from hafs_tui.widgets.confirm import Confirm
from hafs_tui.widgets.form import FieldRow, Form
from hafs_tui.widgets.log_view import LogView
from hafs_tui.widgets.table import Table
from remote import CPU_INDEX, Reading
from tests.app.conftest import SIZES, until
from tests.app.looks import frozen, look, shown
from tests.app.stages import AT, put_jobs
from tests.servers.hosts import sshd
from tests.servers.sshd import Sshd

__all__ = ["frozen", "sshd"]


def reading(index: int, seconds: int, *, stale_s: float = 0.0, host: str = "local") -> Reading:
    """A reading of a card (or of the processor) that gets busier."""
    card = index != CPU_INDEX
    return Reading(
        host, index, "RTX 5060 Ti" if card else "CPU", 20.0 + seconds, 4096.0 + 100 * seconds, 16384.0,
        45.0 + seconds if card else None, 90.0 + seconds if card else None, AT + seconds, stale_s,
    )  # fmt: skip


async def open_hosts(app: HafsApp, pilot: Pilot[None]) -> HostsScreen:
    await pilot.press("8")
    screen = app.screen
    assert isinstance(screen, HostsScreen)
    await until(lambda: screen.snapshot, pilot)
    return screen


@SIZES
async def test_readings_of_a_card_are_drawn_and_stale_ones_are_marked(
    app: HafsApp, ws: Workspace, size: tuple[int, int]
) -> None:
    await put_jobs(ws)
    async with app.run_test(size=size) as pilot:
        screen = await open_hosts(app, pilot)
        for second in range(30):
            app.gauges.add([reading(0, second)])
        table = screen.query_one("#readings", Table)
        await until(lambda: "GPU 0" in shown(table), pilot)
        text = shown(table)
        for figure in ("49 %", "6.8/16.0 GiB", "74 °C", "119 W", "▄"):
            assert figure in text
        assert "RTX 5060 Ti" in shown(screen.query_one("#hosts", Table))
        app.gauges.add([reading(0, 29, stale_s=12)])
        await until(lambda: "12 s old" in shown(table), pilot)
        assert "12 s old" in shown(screen.query_one("#hosts", Table))
        assert "dpo-3" in shown(screen.query_one("#jobs", Table))


async def test_a_hidden_screen_draws_no_readings(app: HafsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    async with app.run_test() as pilot:
        screen = await open_hosts(app, pilot)
        await pilot.press("2")
        drawn: list[object] = []
        monkeypatch.setattr(screen.query_one("#readings", Table), "set_rows", drawn.append)
        app.gauges.add([reading(CPU_INDEX, 1)])
        await pilot.pause(1.5)
        assert drawn == []


async def test_a_command_is_launched_followed_and_stopped(app: HafsApp, ws: Workspace) -> None:
    code = "import time; print('counting', flush=True); time.sleep(60)"
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_hosts(app, pilot)
        await pilot.press("c")
        await until(lambda: isinstance(app.screen, Form), pilot)
        command = app.screen.query_one(Input)
        command.value = f"{sys.executable} -c 'not closed"
        await pilot.press("ctrl+s")
        await until(lambda: app.screen.query(".wrong"), pilot)
        command.value = f'{sys.executable} -c "{code}"'
        await pilot.press("ctrl+s")
        await until(lambda: app.screen is screen and screen.job, pilot)
        screen.query_one("#jobs").focus()
        await pilot.press("l")
        await until(lambda: isinstance(app.screen, JobLog), pilot)
        await until(lambda: "counting" in shown(app.screen.query_one(LogView)), pilot)
        await pilot.press("escape", "x")
        await until(lambda: isinstance(app.screen, Confirm), pilot)
        await pilot.press("y")
        await until(lambda: screen.job is not None and screen.job.state != "running", pilot)
        await pilot.press("l")
        await until(lambda: isinstance(app.screen, JobLog), pilot)
        await until(lambda: "— the job is cancelled" in shown(app.screen.query_one(LogView)), pilot, 40)
        (job,) = await jobs.every(ws.db)
        assert job.argv[1] == "-c", "the command was not kept as an argument vector"


async def test_a_broken_list_of_hosts_is_told_and_the_screen_stays(app: HafsApp, ws: Workspace) -> None:
    async with app.run_test(notifications=True) as pilot:
        screen = await open_hosts(app, pilot)
        (ws.config / "hosts.toml").parent.mkdir(exist_ok=True)
        (ws.config / "hosts.toml").write_text('[hosts.box]\nadress = "10.0.0.1"\n')
        await pilot.press("ctrl+r")
        await until(lambda: app._notifications, pilot)
        assert "hosts.toml:2: hosts.box.adress: no such key" in next(iter(app._notifications)).message
        assert "this machine" in shown(screen.query_one("#hosts"))


async def test_this_machine_is_probed(app: HafsApp) -> None:
    async with app.run_test() as pilot:
        screen = await open_hosts(app, pilot)
        await pilot.press("p")
        report = screen.query_one("#host", CodeView)
        await until(lambda: "local, as probed" in shown(report), pilot)
        assert "Python 3." in shown(report)


async def test_an_unknown_key_is_asked_about_and_then_trusted(
    app: HafsApp, ws: Workspace, sshd: Sshd, tmp_path: Path
) -> None:
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_hosts(app, pilot)
        await pilot.press("n")
        await until(lambda: isinstance(app.screen, Form), pilot)
        rows = {row.described.name: row.editor for row in app.screen.query(FieldRow)}
        given = {
            "name": "box", "address": "127.0.0.1", "user": sshd.user, "port": str(sshd.port),
            "key": str(sshd.user_key), "root": str(tmp_path / "there"), "python": sys.executable,
        }  # fmt: skip
        for name, value in given.items():
            editor = rows[name]
            assert isinstance(editor, Input)
            editor.value = value
        await pilot.press("ctrl+s")
        await until(lambda: isinstance(app.screen, Confirm), pilot)
        question = str(app.screen.query_one("Static").render())
        assert "SHA256:" in question
        assert not ws.known_hosts.exists()
        await pilot.press("y")
        await until(lambda: app.screen is screen, pilot)
        await pilot.press("j")
        report = screen.query_one("#host", CodeView)
        await until(lambda: "box, as probed" in shown(report), pilot)
        assert "127.0.0.1" in ws.known_hosts.read_text()
        await pilot.press("X")
        await until(lambda: isinstance(app.screen, Confirm), pilot)
        await pilot.press("y")
        await until(lambda: screen.query_one("#hosts", Table).row_count == 1, pilot)
        assert list(list_hosts(ws)) == ["local"]


@SIZES
async def test_how_it_looks(
    app: HafsApp, ws: Workspace, size: tuple[int, int], snapshot: SnapshotAssertion, frozen: None
) -> None:
    await put_jobs(ws)
    async with app.run_test(size=size) as pilot:
        screen = await open_hosts(app, pilot)
        for second in range(60):
            app.gauges.add([reading(0, second % 40), reading(1, second // 2)])
        await until(lambda: "GPU 1" in shown(screen.query_one("#readings")), pilot)
        await look(pilot, snapshot)
