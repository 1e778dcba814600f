"""Jobs, the same on this machine, over SSH and through Slurm: they start once, go on alone, and are followed
exactly. Under Slurm they wait for their turn first, so nobody expects them to run at once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from remote import ENDED, Chunk, Host, HostError, JobStatus, Launch, NoSuchJob
from tests.servers.hosts import Place

everywhere = pytest.mark.parametrize("place", ["local", "ssh", "slurm"], indirect=True)


def python(code: str, *args: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code, *args)


async def text_of(host: Host, job_id: str, stream: str = "stdout") -> str:
    return b"".join([chunk.data async for chunk in host.follow(job_id, stream)]).decode()  # type: ignore[arg-type]


async def running(host: Host, status: JobStatus) -> JobStatus:
    """The status once it has left the queue."""
    while status.state in ("queued", "starting"):
        status = await host.news(status)
    return status


async def until(condition, limit_s: float = 20.0) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.02)


@everywhere
async def test_a_job_runs_with_its_environment_and_its_end_is_known(host: Host, place: Place) -> None:
    code = (
        "import os, sys, json\n"
        "open(os.environ['HAFS_EVENTS'], 'a').write(json.dumps({'event': 'hello'}) + '\\n')\n"
        "print(os.environ['GREETING'], os.environ['PYTHONUNBUFFERED'], os.getcwd())\n"
        "print('to stderr', file=sys.stderr)\n"
        "sys.exit(3)"
    )
    launched = await host.launch(Launch("first", python(code), env={"GREETING": "grüß 'dich' $HOME"}))
    assert (await running(host, launched)).state in ("running", "failed")
    status = await host.wait("first")
    assert (status.state, status.exit_code) == ("failed", 3)
    assert status.started_at is not None
    assert status.ended_at is not None
    assert status.ended_at >= status.started_at
    job_dir = place.root / "jobs" / "first"
    assert await text_of(host, "first") == f"grüß 'dich' $HOME 1 {job_dir}\nto stderr\n"
    assert json.loads(await text_of(host, "first", "events")) == {"event": "hello"}
    assert [job.job_id for job in await host.jobs()] == ["first"]


GATED = """
import os, time
for i in range(20000):
    print(i)
    if i % 4000 == 2000:
        while not os.path.exists(f"go{i // 4000}"):
            time.sleep(0.01)
"""


@everywhere
async def test_every_line_arrives_once_and_in_order_though_the_link_is_cut(host: Host, place: Place) -> None:
    """The job waits at five places until it is let go on, and at that moment the link is cut."""
    job = await host.launch(Launch("lines", python(GATED)))
    got, cuts, expected = b"", 0, 0
    async for chunk in host.follow("lines", "stdout"):
        assert isinstance(chunk, Chunk)
        assert chunk.offset == expected
        expected = chunk.end
        got += chunk.data
        if got.count(b"\n") > cuts * 4000 + 2000:
            Path(job.job_dir, f"go{cuts}").touch()
            cuts += 1
            place.cut()
    assert cuts == 5
    assert got == "".join(f"{i}\n" for i in range(20000)).encode()
    # Whoever comes later and stopped in the middle reads on from there.
    rest = b"".join([chunk.data async for chunk in host.follow("lines", "stdout", 50_001)])
    assert rest == got[50_001:]


@everywhere
async def test_new_bytes_come_promptly(host: Host) -> None:
    code = "import time, sys\nfor i in range(10):\n    print(time.time())\n    time.sleep(0.2)"
    await host.launch(Launch("prompt", python(code)))
    delays = []
    async for chunk in host.follow("prompt", "stdout"):
        now = time.time()
        delays += [now - float(line) for line in chunk.data.decode().split()]
    assert len(delays) == 10
    assert sorted(delays)[5] < 0.5


@everywhere
async def test_a_job_outlives_the_session_that_started_it(host: Host, place: Place) -> None:
    code = "import time\nfor i in range(30):\n    print(i)\n    time.sleep(0.1)"
    status = await running(host, await host.launch(Launch("alone", python(code))))
    place.cut()
    await host.aclose()
    assert status.pid is not None
    assert psutil.pid_exists(status.pid)
    later = place.open()
    assert (await later.status("alone")).state == "running"
    assert await text_of(later, "alone") == "".join(f"{i}\n" for i in range(30))
    assert (await later.status("alone")).state == "done"


@everywhere
async def test_launching_twice_starts_it_once(place: Place) -> None:
    one, other = place.open(), place.open()
    code = "import os, time\nopen('starts', 'a').write('x')\ntime.sleep(0.3)"
    launch = Launch("once", python(code))
    launched = await asyncio.gather(*(host.launch(launch) for host in (one, other, one, other)))
    statuses = [await running(one, status) for status in launched]
    assert len({status.pid for status in statuses if status.pid}) == 1
    await one.wait("once")
    again = await other.launch(launch)
    assert again.state == "done"
    assert (place.root / "jobs" / "once" / "starts").read_text() == "x"


ESCAPING = """
import os, signal, sys, time
def note(name):
    with open(name, "w") as file:
        file.write(str(os.getpid()))
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        note("daemon")
        time.sleep(600)
    os._exit(0)
def told(*_):
    note("asked")
    sys.exit(0)
signal.signal(signal.SIGTERM, told)
note("main")
print("ready")
time.sleep(600)
"""


@everywhere
async def test_cancel_asks_first_and_ends_the_whole_tree_and_nothing_else(host: Host, place: Place) -> None:
    await host.launch(Launch("tree", python(ESCAPING)))
    bystander = await host.launch(Launch("bystander", python("import time; time.sleep(600)")))
    bystander = await running(host, bystander)
    folder = place.root / "jobs" / "tree"
    await until(lambda: (folder / "daemon").exists() and (folder / "main").exists())
    daemon = int((folder / "daemon").read_text())
    asked = await host.cancel("tree", grace_s=1.0)
    assert asked.state in ("running", "stopping", "cancelled")
    status = await host.wait("tree")
    assert status.state == "cancelled"
    assert (folder / "asked").exists()
    assert not psutil.pid_exists(daemon)
    assert bystander.pid is not None
    assert psutil.pid_exists(bystander.pid)
    await host.cancel("bystander", grace_s=0.0)
    assert (await host.wait("bystander")).state == "cancelled"


@everywhere
async def test_a_job_that_ends_takes_what_it_left_behind_with_it(host: Host, place: Place) -> None:
    code = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    open('left', 'w').write(str(os.getpid()))\n"
        "    time.sleep(600)\n"
        "while not os.path.exists('left'): time.sleep(0.01)"
    )
    await host.launch(Launch("orphan", python(code)))
    assert (await host.wait("orphan")).state == "done"
    assert not psutil.pid_exists(int((place.root / "jobs" / "orphan" / "left").read_text()))


async def test_a_job_whose_supervisor_was_killed_is_lost_and_can_still_be_ended(
    host: Host, place: Place
) -> None:
    status = await host.launch(Launch("lost", python(ESCAPING)))
    folder = place.root / "jobs" / "lost"
    await until(lambda: (folder / "daemon").exists() and (folder / "main").exists())
    state = json.loads((folder / "state.json").read_text())
    os.kill(state["supervisor_pid"], signal.SIGKILL)
    await until(lambda: not _runs(state["supervisor_pid"]))
    lost = await host.status("lost")
    assert lost.state == "lost"
    assert "still runs" in lost.message
    await host.cancel("lost", grace_s=0.5)
    assert (folder / "asked").exists()
    assert not _runs(status.pid)
    assert not _runs(int((folder / "daemon").read_text()))
    assert [chunk.data async for chunk in host.follow("lost", "stdout")] == [b"ready\n"]


def _runs(pid: int | None) -> bool:
    try:
        return psutil.Process(pid or 0).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("changed", [{"boot_id": "another"}, {"supervisor_start": "1"}])
async def test_a_pid_alone_proves_nothing(host: Host, place: Place, changed: dict[str, str]) -> None:
    """After a restart of the host another process may have the supervisor's pid."""
    job_dir = place.root / "jobs" / "before"
    await host.launch(Launch("before", python("print(1)")))
    await host.wait("before")
    state = json.loads((job_dir / "state.json").read_text())
    (job_dir / "exit.json").unlink()
    me = psutil.Process()
    state.update(supervisor_pid=me.pid, **changed)
    (job_dir / "state.json").write_text(json.dumps(state))
    assert (await host.status("before")).state == "lost"


@everywhere
async def test_bad_requests_are_refused_in_words(host: Host, place: Place) -> None:
    with pytest.raises(NoSuchJob, match="nothing-here"):
        await host.status("nothing-here")
    with pytest.raises(NoSuchJob):
        _ = [chunk async for chunk in host.follow("nothing-here")]
    with pytest.raises(HostError, match="not a job id"):
        await host.launch(Launch("../outside", ("true",)))
    status = await running(host, await host.launch(Launch("no-program", ("/no/such/program",))))
    assert (status.state, status.exit_code) == ("failed", 127)
    assert "/no/such/program" in status.message
    status = await running(host, await host.launch(Launch("no-folder", python("1"), cwd="nowhere")))
    assert status.state == "failed"
    assert "nowhere" in status.message


async def test_a_short_command_runs_and_is_ended_in_time(host: Host, place: Place) -> None:
    code = "import sys; print(sys.stdin.read().upper(), end=''); print(len(sys.argv[1]), file=sys.stderr); sys.exit(4)"
    done = await host.run(python(code, 'a "b" $c'), stdin="größe".encode())
    assert (done.exit_code, done.stdout.decode(), done.stderr) == (4, "GRÖSSE", b"8\n")
    with pytest.raises(HostError, match="no end after"):
        await host.run(python("import time; time.sleep(60)"), timeout_s=0.3)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await host.run(
                python("import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)")
            )
    await until(lambda: not _runs(int((place.root / "pid").read_text())))
    with pytest.raises(HostError, match="no-such-program"):
        await host.run(("no-such-program",))


async def test_probe_tells_what_a_person_needs_to_know(host: Host, place: Place) -> None:
    probe = await host.probe()
    assert probe.os == "linux"
    assert Path(probe.root) == place.root
    assert probe.python == sys.executable
    assert probe.cpus == os.cpu_count()
    assert probe.disk_free_bytes > 0
    assert 0 < probe.latency_s < 5
    assert abs(probe.clock_skew_s) < 1
    assert probe.gpus or probe.gpu_problem


@everywhere
async def test_invalid_utf8_and_binary_output_are_carried_as_they_are(host: Host) -> None:
    code = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 5000)"
    await host.launch(Launch("binary", python(code)))
    data = b"".join([chunk.data async for chunk in host.follow("binary", "stdout")])
    assert data == bytes(range(256)) * 5000


@everywhere
async def test_states_that_end_are_the_ones_that_follow_ends_on(host: Host) -> None:
    await host.launch(Launch("quick", ("true",)))
    status = await host.wait("quick")
    assert status.ended
    assert status.state in ENDED


async def test_a_closed_host_stays_closed(host: Host) -> None:
    await host.launch(Launch("long", ("sleep", "600")))
    following = asyncio.create_task(text_of(host, "long"))
    await asyncio.sleep(0)
    await host.cancel("long", grace_s=0.0)
    assert await following == ""
    await host.aclose()
    with pytest.raises(HostError, match="closed"):
        await host.jobs()


async def test_a_job_may_be_cancelled_before_it_started(host: Host, place: Place) -> None:
    """The stop file is there when the supervisor comes."""
    job_dir = place.root / "jobs" / "early"
    await host.launch(Launch("early", ("true",)))
    await host.wait("early")
    for name in ("exit.json", "state.json"):
        (job_dir / name).unlink()
    (job_dir / "supervisor").rmdir()
    (job_dir / "stop").write_text('{"grace_s": 1}')
    status = await host.launch(Launch("early", ("true",)))
    assert (status.state, status.exit_code, status.started_at) == ("cancelled", None, None)
