"""The queue of a host: one job for each slot, the next starts by itself, and the host alone decides."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from remote import Host, JobStatus, Launch, Refused
from tests.remote.test_remote_jobs import python, text_of, until
from tests.servers.hosts import Place

GATED = "import os, time\nopen('began', 'w').close()\nwhile not os.path.exists('go'): time.sleep(0.02)"


@pytest.fixture
async def one(place: Place) -> AsyncIterator[Host]:
    """A host with one slot; what still waits or runs at the end is ended."""
    host = place.open(slots=1)
    yield host
    last = place.open(slots=1)
    for job in reversed(await last.jobs()):
        await last.cancel(job.job_id, grace_s=0.0)


def let_go(status: JobStatus) -> None:
    Path(status.job_dir, "go").touch()


async def states(host: Host) -> dict[str, tuple[str, int | None]]:
    return {job.job_id: (job.state, job.position) for job in await host.jobs()}


async def test_jobs_wait_their_turn_and_the_next_starts_while_nobody_is_there(
    one: Host, place: Place
) -> None:
    first, second, third = [await one.launch(Launch(name, python(GATED))) for name in ("a", "b", "c")]
    assert [job.state for job in (first, second, third)] == ["running", "queued", "queued"]
    assert await states(one) == {"a": ("running", None), "b": ("queued", 1), "c": ("queued", 2)}
    again = await one.launch(Launch("c", python(GATED)))
    assert (again.state, again.position) == ("queued", 2), "launched twice, it waits once"
    await one.aclose()
    for job, following in ((first, second), (second, third)):
        let_go(job)
        await until(lambda following=following: Path(following.job_dir, "began").exists())
    let_go(third)
    later = place.open(slots=1)
    for name in "abc":
        assert (await later.wait(name)).state == "done"


async def test_news_tell_of_each_step(one: Host) -> None:
    first = await one.launch(Launch("first", python(GATED)))
    waiting = await one.launch(Launch("waiting", python("1")))
    news = asyncio.create_task(one.news(waiting))
    await asyncio.sleep(0)
    let_go(first)
    told = await news
    assert (told.state, told.position) != ("queued", 1)
    assert (await one.wait("waiting")).state == "done"


async def test_the_order_can_be_changed_while_a_job_waits(one: Host) -> None:
    held = await one.launch(Launch("held", python(GATED)))
    for name in "xyz":
        await one.launch(Launch(name, python("print(1)")))
    assert (await one.move("z", 1)).position == 1
    assert (await one.move("x", 99)).position == 3
    assert [name for name, (_, position) in sorted((await states(one)).items(), key=lambda s: s[1][1] or 0)] == [
        "held", "z", "y", "x",
    ]  # fmt: skip
    with pytest.raises(Refused, match="does not wait any more"):
        await one.move("held", 1)
    let_go(held)
    ends = [await one.wait(name) for name in "zyx"]
    assert [job.started_at for job in ends] == sorted(job.started_at or 0 for job in ends)


async def test_a_job_that_waits_can_be_cancelled_and_never_starts(one: Host) -> None:
    held = await one.launch(Launch("held", python(GATED)))
    waiting = await one.launch(Launch("waiting", python(GATED)))
    cancelled = await one.cancel("waiting")
    assert (cancelled.state, cancelled.exit_code, cancelled.position) == ("cancelled", None, None)
    assert await text_of(one, "waiting") == ""
    let_go(held)
    await one.wait("held")
    last = await one.launch(Launch("last", python("1")))
    await one.wait("last")
    assert last.job_dir
    assert not Path(waiting.job_dir, "began").exists()


async def test_now_goes_by_the_queue(one: Host) -> None:
    await one.launch(Launch("held", python(GATED)))
    assert (await one.launch(Launch("urgent", python("1"), now=True))).state in ("running", "done")
    assert (await one.wait("urgent")).state == "done"
    assert (await states(one))["held"] == ("running", None)


async def test_a_killed_supervisor_keeps_its_slot_until_its_process_ends(one: Host, place: Place) -> None:
    held = await one.launch(Launch("held", python(GATED)))
    await one.launch(Launch("next", python("1")))
    supervisor = json.loads(Path(held.job_dir, "state.json").read_text())["supervisor_pid"]
    os.kill(supervisor, signal.SIGKILL)
    await until(lambda: not psutil.pid_exists(supervisor))
    other = place.open(slots=1)
    assert (await other.status("next")).state == "queued", "its process still uses the card"
    await one.cancel("held", grace_s=0.0)
    await other.aclose()
    assert (await place.open(slots=1).wait("next")).state == "done"


SMI = """#!/bin/sh
echo "Card A"
echo "Card B"
echo "Card C"
"""


@pytest.mark.parametrize("place", ["local"], indirect=True)  # the same code, and a PATH that can be set
async def test_each_slot_has_its_own_cards(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One job for each GPU where nothing else is set."""
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text(SMI)
    smi.chmod(smi.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{smi.parent}:{os.environ['PATH']}")
    place.config = replace(place.config, slots=None)
    host = place.open()
    code = (
        "import os; print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['CUDA_DEVICE_ORDER'], flush=True)\n"
    )
    jobs = [await host.launch(Launch(f"j{n}", python(code + GATED))) for n in range(4)]
    assert [job.state for job in jobs] == ["running"] * 3 + ["queued"]
    let_go(jobs[1])
    await until(lambda: Path(jobs[3].job_dir, "began").exists())
    for job in jobs:
        let_go(job)
    seen = [await text_of(host, job.job_id) for job in jobs]
    assert seen == ["0 PCI_BUS_ID\n", "1 PCI_BUS_ID\n", "2 PCI_BUS_ID\n", "1 PCI_BUS_ID\n"]
