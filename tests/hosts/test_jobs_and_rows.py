"""Jobs of a host and their rows: started once, told once, whatever breaks in between."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from backend.hosts.catalog import list_hosts, open_named_host, probe_host, remove_host
from backend.hosts.gauges import Gauges, read_gauges, watch_gauges
from backend.hosts.jobs import (
    JobNotFound,
    cancel_job,
    follow_job,
    list_jobs,
    move_job,
    read_log,
    show_job,
)
from backend.hosts.launching import launch_command
from backend.hosts.mirror import mirror, mirror_all, wait_for
from backend.settings import SettingsError, Workspace
from backend.store import jobs, leases
from backend.store.leases import LeaseHeldError
from remote import HostError, HostKeyUnknown, Reading
from tests.fixtures.workspace_hosts import Loop

TELL = """
import json, os, sys, time
count, pause = int(sys.argv[1]), float(sys.argv[2])
with open(os.environ["HAFS_EVENTS"], "a") as file:
    for n in range(1, count + 1):
        event = {"seq": n, "t": time.time(), "event": "metrics", "step": n, "total_steps": count, "loss": 1 / n}
        print(json.dumps(event), file=file, flush=True)
        print("line", n)
        time.sleep(pause)
"""


def tells(count: int, pause: float = 0.0) -> tuple[str, ...]:
    """A job that tells `count` metrics events and prints as many lines."""
    return (sys.executable, "-c", TELL, str(count), str(pause))


async def until(check: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
    """Wait for a condition, or fail."""
    async with asyncio.timeout(seconds):
        while not await check():
            await asyncio.sleep(0.02)


async def told(ws: Workspace, job_id: str) -> list[int]:
    """Numbers of the events that are stored."""
    return [event.seq for event in await jobs.events(ws.db, job_id)]


async def test_output_is_handed_on_and_the_end_is_in_the_row(ws: Workspace, host_name: str) -> None:
    job = await launch_command(ws, host_name, tells(50))
    output: list[bytes] = []
    ended = await follow_job(ws, job.id, output.append)
    assert b"".join(output).decode().splitlines() == [f"line {n}" for n in range(1, 51)]
    assert (ended.state, ended.exit_code, ended.host) == ("done", 0, host_name)
    assert ended.started_at is not None
    assert ended.ended_at is not None
    assert await told(ws, job.id) == list(range(1, 51))
    assert await jobs.metric(ws.db, job.id, "loss") == [(n, 1 / n) for n in range(1, 51)]
    again: list[bytes] = []
    await follow_job(ws, job.id, again.append)
    assert b"".join(again) == b"".join(output)


async def test_a_failed_job_keeps_its_last_lines(ws: Workspace, host_name: str) -> None:
    script = "import sys\nfor n in range(80): print('step', n)\nsys.exit(3)"
    job = await launch_command(ws, host_name, (sys.executable, "-c", script))
    ended = await wait_for(ws, job.id)
    assert (ended.state, ended.exit_code) == ("failed", 3)
    assert ended.error is not None
    assert "step 79" in ended.error
    assert "step 29\n" not in ended.error, "the last 50 lines and no more"
    assert (await read_log(ws, job.id, last_lines=2)).splitlines() == ["step 78", "step 79"]


async def test_no_job_of_this_machine_inherits_a_key(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-of-this-test")
    monkeypatch.setenv("HAFS_TEST_MARK", "inherited")
    job = await launch_command(ws, "local", (sys.executable, "-c", "import os; print(dict(os.environ))"))
    await wait_for(ws, job.id)
    said = await read_log(ws, job.id)
    assert "inherited" in said
    assert "sk-of-this-test" not in said
    folder = ws.host_root / "jobs" / job.id
    assert not any(b"sk-of-this-test" in file.read_bytes() for file in folder.iterdir() if file.is_file())


async def test_the_same_id_starts_one_job(ws: Workspace, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    argv = (sys.executable, "-c", f"open({str(mark)!r}, 'a').write('x')")
    await launch_command(ws, "local", argv, job_id="mine")
    await wait_for(ws, "mine")
    await launch_command(ws, "local", argv, job_id="mine")
    await wait_for(ws, "mine")
    assert mark.read_text() == "x"
    assert len(await list_jobs(ws)) == 1


async def test_cancelling_ends_the_tree(ws: Workspace, host_name: str) -> None:
    job = await launch_command(ws, host_name, (sys.executable, "-c", "import time; time.sleep(600)"))
    waiting = asyncio.create_task(wait_for(ws, job.id))
    stopping = await cancel_job(ws, job.id, grace_s=5)
    assert stopping.state in ("stopping", "cancelled")
    ended = await waiting
    assert ended.state == "cancelled"
    assert (await cancel_job(ws, job.id)).state == "cancelled"


async def test_a_link_that_breaks_loses_and_doubles_nothing(ws: Workspace, loop_host: Loop) -> None:
    job = await launch_command(ws, "loop", tells(3000, 0.001))
    heard: list[int] = []
    watching = asyncio.create_task(mirror(ws, job.id, lambda record: heard.append(record.seq)))
    for share in (300, 900, 1500, 2200):

        async def passed(share: int = share) -> bool:
            return len(heard) > share

        await until(passed)
        loop_host.cut()
    ended = await watching
    assert loop_host.proxy.links > 4
    assert ended.state == "done"
    assert heard == list(range(1, 3001))
    assert await told(ws, job.id) == list(range(1, 3001))


async def test_a_mirror_that_was_cancelled_goes_on_where_its_rows_end(ws: Workspace) -> None:
    job = await launch_command(ws, "local", tells(1500, 0.001))
    heard: list[int] = []
    for share in (200, 800):
        task = asyncio.create_task(mirror(ws, job.id, lambda record: heard.append(record.seq)))

        async def passed(share: int = share) -> bool:
            return len(heard) > share

        await until(passed)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        stored = await told(ws, job.id)
        assert stored == list(range(1, len(stored) + 1))
    await mirror(ws, job.id)
    assert await told(ws, job.id) == list(range(1, 1501))


MIRROR = """
import asyncio, sys
from pathlib import Path
from backend.hosts.mirror import mirror
from backend.settings import open_workspace

async def main():
    async with open_workspace(Path(sys.argv[1])) as ws:
        await mirror(ws, sys.argv[2])

asyncio.run(main())
"""


async def test_a_mirror_that_was_killed_is_taken_over(ws: Workspace) -> None:
    job = await launch_command(ws, "local", tells(2000, 0.001))
    process = subprocess.Popen([sys.executable, "-c", MIRROR, str(ws.home), job.id], start_new_session=True)

    async def half_way() -> bool:
        return len(await told(ws, job.id)) > 300

    await until(half_way)
    with pytest.raises(LeaseHeldError):
        await mirror(ws, job.id)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    ended = await wait_for(ws, job.id)
    assert ended.state == "done"
    assert await told(ws, job.id) == list(range(1, 2001))


async def test_whoever_waits_while_another_mirrors_hears_all(ws: Workspace) -> None:
    job = await launch_command(ws, "local", tells(200, 0.002))
    heard: list[int] = []
    async with asyncio.TaskGroup() as group:
        first = group.create_task(wait_for(ws, job.id))
        second = group.create_task(wait_for(ws, job.id, lambda record: heard.append(record.seq)))
    assert first.result().state == second.result().state == "done"
    assert heard == list(range(1, 201))


async def test_what_is_no_event_costs_no_other(ws: Workspace) -> None:
    script = (
        "import os\n"
        'line = \'{"seq": %d, "t": 1.0, "event": "progress", "what": "x", "done": 1, "total": 2}\\n\'\n'
        "open(os.environ['HAFS_EVENTS'], 'w').write(line % 1 + 'torn{\\n' + line % 2)"
    )
    job = await launch_command(ws, "local", (sys.executable, "-c", script))
    await wait_for(ws, job.id)
    assert await told(ws, job.id) == [1, 2]


async def test_the_app_mirrors_whatever_is_launched(ws: Workspace, host_name: str) -> None:
    async with ws.db.transaction() as transaction:
        await jobs.insert(transaction, "never-arrived", host_name, "command", "[]", "{}")
    app = asyncio.create_task(mirror_all(ws))
    launched = [await launch_command(ws, host_name, tells(20 + n)) for n in range(3)]

    async def ended() -> bool:
        return not await jobs.not_ended(ws.db)

    await until(ended)
    app.cancel()
    await asyncio.gather(app, return_exceptions=True)
    for n, job in enumerate(launched):
        assert (await show_job(ws, job.id)).state == "done"
        assert await told(ws, job.id) == list(range(1, 21 + n))
        assert await leases.holder(ws.db, f"job:{job.id}") is None
    lost = await show_job(ws, "never-arrived")
    assert lost.state == "failed"
    assert "never started" in str(lost.error)


async def test_the_app_outlasts_a_host_that_is_away(
    ws: Workspace, loop_host: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    job = await launch_command(ws, "loop", tells(10))
    loop_host.proxy.refuse()
    app = asyncio.create_task(mirror_all(ws))

    async def refused() -> bool:
        return "is not mirrored now" in caplog.text

    await until(refused)
    assert not app.done()
    loop_host.proxy.restore()

    async def ended() -> bool:
        return (await jobs.by_id(ws.db, job.id) or job).ended

    await until(ended)
    app.cancel()
    await asyncio.gather(app, return_exceptions=True)
    assert await told(ws, job.id) == list(range(1, 11))


async def test_showing_a_job_that_nobody_mirrors_asks_its_host(ws: Workspace) -> None:
    job = await launch_command(ws, "local", tells(5))
    deadline = time.monotonic() + 20
    while (shown := await show_job(ws, job.id)).state != "done" and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    assert shown.state == "done"
    assert await told(ws, job.id) == [1, 2, 3, 4, 5]


async def test_errors_name_what_is_there(ws: Workspace) -> None:
    with pytest.raises(SettingsError, match="no host named nowhere; known: local"):
        await launch_command(ws, "nowhere", ("true",))
    with pytest.raises(JobNotFound, match="no job x"):
        await show_job(ws, "x")
    job = await launch_command(ws, "local", ("/no/such/program",))
    ended = await wait_for(ws, job.id)
    assert ended.state == "failed"
    assert "/no/such/program" in str(ended.error)


async def test_a_host_that_cannot_be_reached_leaves_no_row(ws: Workspace, loop_host: Loop) -> None:
    loop_host.proxy.refuse()
    with pytest.raises(HostError, match="loop"):
        await launch_command(ws, "loop", ("true",))
    assert await list_jobs(ws) == []


async def test_a_first_contact_asks_and_is_remembered(ws: Workspace, loop_host: Loop) -> None:
    ws.known_hosts.unlink()
    with pytest.raises(HostKeyUnknown) as asked:
        await probe_host(ws, "loop")
    assert asked.value.fingerprint.startswith("SHA256:")
    report = await probe_host(ws, "loop", accept_new=True)
    assert report.probe.python_version.startswith("3.")
    assert report.missing == ()
    assert (await probe_host(ws, "loop")).probe.host == "loop"
    remove_host(ws, "loop")
    assert list(list_hosts(ws)) == ["local"]


async def test_gauges_give_the_processor_where_there_is_no_card(ws: Workspace, host_name: str) -> None:
    readings = await read_gauges(ws, host_name)
    assert readings
    assert readings[0].host == host_name
    assert readings[0].memory_total_mib is not None


async def test_gauges_follow_the_host_list(ws: Workspace, loop_host: Loop) -> None:
    gauges = Gauges()
    watching = asyncio.create_task(watch_gauges(ws, gauges, interval_s=0.2))

    async def both() -> bool:
        return {reading.host for reading in gauges.latest()} == {"local", "loop"}

    await until(both)
    hosts = (ws.config / "hosts.toml").read_text()
    (ws.config / "hosts.toml").write_text("[hosts.loop")

    async def told() -> bool:
        return "hosts.toml" in gauges.problems

    await until(told)
    (ws.config / "hosts.toml").write_text(hosts)

    async def mended() -> bool:
        return "hosts.toml" not in gauges.problems

    await until(mended)
    assert not watching.done(), "a file that somebody is just editing ends no watching"
    remove_host(ws, "loop")

    async def one() -> bool:
        return {reading.host for reading in gauges.latest()} == {"local"}

    await until(one)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


def test_gauges_keep_the_last_readings() -> None:
    gauges = Gauges(seconds=3)
    for at in range(5):
        gauges.add([Reading("box", 0, "card", float(at), None, None, None, None, float(at))])
    gauges.add([Reading("box", 0, "card", 4.0, None, None, None, None, 4.0, stale_s=9.0)])
    history = gauges.history("box", 0)
    assert [reading.utilization for reading in history] == [2.0, 3.0, 4.0]
    assert gauges.latest()[0].stale_s == 9.0
    gauges.fail("box", "unreachable")
    assert gauges.problems == {"box": "unreachable"}


async def test_files_of_a_host_come_and_go(ws: Workspace, host_name: str, tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps({"instruction": "a", "output": "b"}) + "\n")
    async with open_named_host(ws, host_name) as host:
        sent = await host.put(source, "datasets/rows.jsonl")
        got = await host.get(sent.path, tmp_path / "back.jsonl")
    assert (tmp_path / "back.jsonl").read_bytes() == source.read_bytes()
    assert got.sha256 == sent.sha256


async def test_a_queue_is_mirrored_and_moved(ws: Workspace, loop_host: Loop) -> None:
    """What is asked while the link is down is taken or refused when it is back."""
    held = await launch_command(ws, "loop", (sys.executable, "-c", "import time; time.sleep(600)"))
    first, second = [await launch_command(ws, "loop", tells(3)) for _ in range(2)]
    assert (held.state, first.state, first.position, second.position) == ("running", "queued", 1, 2)
    app = asyncio.create_task(mirror_all(ws))
    assert (await move_job(ws, second.id, 1)).state == "taken"
    assert (await show_job(ws, first.id)).position == 2
    assert (await show_job(ws, second.id)).position == 1

    loop_host.proxy.refuse()
    assert (await move_job(ws, first.id, 1)).state == "asked"
    loop_host.proxy.restore()

    async def taken() -> bool:
        request = await jobs.last_request(ws.db, first.id)
        return request is not None and request.state == "taken"

    await until(taken)
    assert (await move_job(ws, held.id, 1)).state == "refused"
    await cancel_job(ws, held.id, grace_s=0)

    async def ended() -> bool:
        return not await jobs.not_ended(ws.db)

    await until(ended)
    app.cancel()
    await asyncio.gather(app, return_exceptions=True)
    began = [(await show_job(ws, job.id)).started_at or 0 for job in (first, second)]
    assert began == sorted(began)
    assert [(await show_job(ws, job.id)).position for job in (held, first, second)] == [None] * 3
