"""A disk that fills up: no launch below the bar, a warning under way, and a pause where a job can be resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from remote import JobStatus, Launch, Refused
from tests.remote.test_queue import GATED, let_go
from tests.remote.test_remote_jobs import python
from tests.servers.hosts import Place

FULL = 2**60


async def test_nothing_is_launched_without_room(place: Place) -> None:
    place.config = replace(place.config, min_free_bytes=FULL)
    with pytest.raises(Refused, match=r"min_free_gib") as refused:
        await place.open().launch(Launch("big", python("1")))
    assert refused.value.kind == "no space"
    assert refused.value.remedy
    assert await place.open().jobs() == []


async def queued_on_a_full_disk(place: Place, code: str, *, resumable: bool) -> JobStatus:
    """The bar is raised while the job waits: as if the disk had been filled meanwhile."""
    host = place.open(slots=1)
    held = await host.launch(Launch("held", python(GATED)))
    waiting = await host.launch(Launch("waiting", python(code), resumable=resumable))
    spec = Path(waiting.job_dir, "spec.json")
    spec.write_text(json.dumps({**json.loads(spec.read_text()), "min_free_bytes": FULL}))
    let_go(held)
    return waiting


async def test_a_job_that_can_be_resumed_saves_and_pauses(place: Place) -> None:
    code = (
        "import signal, sys, time\n"
        "def save(*_):\n    open('saved', 'w').close()\n    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save)\ntime.sleep(600)"
    )
    job = await queued_on_a_full_disk(place, code, resumable=True)
    ended = await place.open().wait("waiting")
    assert (ended.state, ended.exit_code in (143, -15)) == ("cancelled", True)
    assert "paused" in ended.message
    assert "GiB are free" in ended.message
    assert ended.exit_code == -15 or Path(job.job_dir, "saved").exists()


async def test_any_other_job_is_warned_of_and_goes_on(place: Place) -> None:
    job = await queued_on_a_full_disk(place, GATED, resumable=False)
    host = place.open()
    status = await host.status("waiting")
    while not status.message:
        status = await host.news(status)
    assert status.state in ("starting", "running")
    assert "less than" in status.message
    let_go(job)
    assert (await host.wait("waiting")).state == "done"
