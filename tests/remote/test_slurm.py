"""A real Slurm behind a real sshd: what is its own. The job tests run on it too."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from remote import Host, HostError, Launch, Refused, Slurm
from tests.remote.test_queue import GATED, let_go
from tests.remote.test_remote_jobs import python, running, text_of
from tests.servers.hosts import Place

pytestmark = pytest.mark.parametrize("place", ["slurm"], indirect=True)


def opened(place: Place, slurm: Slurm) -> Host:
    place.config = replace(place.config, slurm=slurm)
    return place.open()


async def test_jobs_wait_for_cards_and_can_be_taken_out_while_they_wait(place: Place) -> None:
    host = opened(place, Slurm(gpus=2, partition="main", time="30"))
    show = "import os; print(len(os.environ['CUDA_VISIBLE_DEVICES'].split(',')), flush=True)\n"
    first = await running(host, await host.launch(Launch("first", python(show + GATED))))
    waiting = await host.launch(Launch("waiting", python("1")))
    while "Resources" not in waiting.message:
        assert waiting.state in ("queued", "starting")
        waiting = await host.news(waiting)
    with pytest.raises(Refused, match="Slurm's"):
        await host.move("waiting", 1)
    cancelled = await host.cancel("waiting")
    assert (cancelled.state, cancelled.started_at) == ("cancelled", None)
    let_go(first)
    assert (await host.wait("first")).state == "done"
    assert await text_of(host, "first") == "2\n"


async def test_the_time_limit_leaves_room_for_a_checkpoint(place: Place) -> None:
    host = opened(place, Slurm(time="1"))  # the signal comes 60 s before the limit: at once
    code = (
        "import signal, sys, time\n"
        "def save(*_):\n    time.sleep(1)\n    print('saved', flush=True)\n    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save)\nprint('ready', flush=True)\ntime.sleep(600)"
    )
    await host.launch(Launch("limited", python(code)))
    ended = await host.wait("limited")
    assert ended.state == "cancelled"
    assert "time limit" in ended.message
    assert await text_of(host, "limited") == "ready\nsaved\n"


async def test_a_job_that_slurm_has_no_more_is_lost(place: Place) -> None:
    host = opened(place, Slurm(time="30"))
    job = await running(host, await host.launch(Launch("gone", python("import time; time.sleep(600)"))))
    state_file = Path(job.job_dir, "state.json")
    os.kill(json.loads(state_file.read_text())["supervisor_pid"], signal.SIGKILL)
    number = json.loads(Path(job.job_dir, "slurm.json").read_text())["number"]
    state = json.loads(state_file.read_text())
    state["heartbeat_at"] -= 60  # as it is a minute later
    state_file.write_text(json.dumps(state))
    ended = await host.wait("gone")
    assert (ended.state, number in ended.message) == ("lost", True)


async def test_what_slurm_refuses_is_told_in_its_words(place: Place) -> None:
    host = opened(place, Slurm(partition="nowhere"))
    with pytest.raises(HostError, match="invalid partition") as refused:
        await host.launch(Launch("refused", python("1")))
    assert "slurm" in refused.value.remedy
    # Mended, the same id can be launched: nothing half-left stands in its way.
    mended = opened(place, Slurm(lines=("#SBATCH --comment=mended", "export FROM_LINES=yes")))
    code = "import os; print(os.environ['FROM_LINES'])"
    await mended.launch(Launch("refused", python(code)))
    assert (await mended.wait("refused")).state == "done"
    assert await text_of(mended, "refused") == "yes\n"
