"""Commands as processes: stopped by signals, going on by themselves, read by pipes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cli.conftest import CAMPAIGN, Cli, until
from tests.servers.openai_server import OpenAIServer


def state(hafs: Cli, name: str) -> dict[str, Any]:
    shown: dict[str, Any] = hafs.json("campaign", "show", name)
    return shown


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_campaign_is_paused_and_goes_on(
    hafs: Cli, openai: OpenAIServer, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    monkeypatch.setattr(openai, "latency_s", 0.1)
    hafs("campaign", "create", "long", "--target", "40", "--parallel", "2", *CAMPAIGN)
    with hafs.start("campaign", "run", "long") as running:
        until(lambda: state(hafs, "long")["accepted"] >= 3)
        running.send_signal(number)
        _, told = running.communicate(timeout=30)
    assert running.returncode == code
    assert told.strip().endswith("stopped")
    stopped = state(hafs, "long")
    assert (stopped["state"], stopped["owned"]) == ("paused", False)
    assert "go on" in stopped["error"]
    monkeypatch.setattr(openai, "latency_s", 0.0)
    ended = hafs.process("--json", "campaign", "resume", "long").document
    assert (ended["state"], ended["accepted"]) == ("done", 40)


def test_a_detached_campaign_goes_on_alone(
    hafs: Cli, openai: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai, "latency_s", 0.1)
    hafs("campaign", "create", "long", "--target", "40", "--parallel", "2", *CAMPAIGN)
    started = hafs.process("--json", "campaign", "run", "long", "--detach").document
    runner = psutil.Process(started["pid"])
    assert os.getsid(runner.pid) != os.getsid(0), "it must outlive the terminal"
    until(lambda: state(hafs, "long")["accepted"] >= 2)
    assert state(hafs, "long")["state"] == "running"
    assert "already being worked on" in hafs("campaign", "run", "long", code=1).err
    hafs("campaign", "pause", "long")
    until(lambda: not runner.is_running() or runner.status() == psutil.STATUS_ZOMBIE)
    assert state(hafs, "long")["state"] == "paused"
    monkeypatch.setattr(openai, "latency_s", 0.0)
    hafs.process("campaign", "resume", "long", "--detach")
    until(lambda: state(hafs, "long")["state"] == "done")
    assert state(hafs, "long")["accepted"] == 40


def test_a_detached_job_is_followed_twice_with_the_same_bytes(hafs: Cli) -> None:
    script = "for i in 1 2 3 4 5; do echo line $i; sleep 0.2; done; printf 'caf\\351 \\033[31m'"
    job = hafs.process("--json", "job", "launch", "local", "--detach", "--", "/bin/sh", "-c", script).document
    assert job["state"] in ("queued", "running")
    follow = [sys.executable, "-m", "hafs_tui", "--home", str(hafs.home), "job", "follow", job["id"]]
    seen = [subprocess.run(follow, capture_output=True, check=True, timeout=60) for _ in range(2)]
    assert seen[0].stdout == b"line 1\nline 2\nline 3\nline 4\nline 5\ncaf\xe9 \x1b[31m"
    assert seen[1].stdout == seen[0].stdout
    assert b"done, exit code 0" in seen[0].stderr
    assert hafs.json("job", "show", job["id"])["exit_code"] == 0


def test_a_follower_that_is_stopped_stops_no_job(hafs: Cli, tmp_path: Path) -> None:
    release = tmp_path / "release"
    script = f"echo started; while [ ! -e {release} ]; do sleep 0.05; done; echo ended"
    job = hafs.json("job", "launch", "local", "--detach", "--", "/bin/sh", "-c", script)
    with hafs.start("job", "follow", job["id"]) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "started\n"
        following.terminate()
        _, told = following.communicate(timeout=30)
    assert following.returncode == 143
    assert f"job {job['id']} goes on" in told
    assert hafs.json("job", "show", job["id"])["state"] == "running"
    release.touch()
    assert hafs("job", "follow", job["id"]).out == "started\nended\n"


def test_a_cancelled_job_is_a_failure_of_its_follower(hafs: Cli) -> None:
    job = hafs.json("job", "launch", "local", "--detach", "--", "sleep", "600")
    hafs("job", "cancel", job["id"], "--grace", "5")
    assert hafs.json("job", "follow", job["id"], code=1)["state"] == "cancelled"


def test_a_reader_that_has_enough_is_no_error(house: Cli) -> None:
    command = f"{sys.executable} -m hafs_tui --home {house.home} samples export /dev/stdout | head -c 20"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr


def test_a_served_model_answers_until_it_is_stopped(hafs: Cli, tmp_path: Path) -> None:
    from backend.providers.embedded import bundled_gguf

    serve = (
        "--json",
        "deploy",
        "gguf",
        f"gguf:{bundled_gguf()}",
        "--name",
        "small",
        "--unevaluated",
        "a test",
    )
    with hafs.start(*serve) as serving:
        assert serving.stdout is not None
        until(lambda: [row["state"] for row in hafs.json("deploy", "status")] == ["serving"])
        (row,) = hafs.json("deploy", "status")
        assert {"name", "kind", "model", "state", "endpoint", "version"} <= set(row)
        assert row["endpoint"].startswith("http://127.0.0.1:")
        said = hafs.json("deploy", "chat", "small", "--message", "Say hello.", "--max-tokens", "8")
        assert said["reply"].strip()
        assert hafs.json("deploy", "stop", "small")["state"] == "stopped"
        out, _ = serving.communicate(timeout=30)
    assert serving.returncode == 0
    assert '"state": "serving"' in out


def test_a_shell_of_a_host_is_a_real_one(hafs: Cli) -> None:
    done = hafs.process("host", "shell", "local", code=5, stdin=_text("echo from the shell; exit 5\n"))
    assert done.out == "from the shell\n"


def _text(text: str) -> int:
    """A pipe's end from which `text` is read."""
    reader, writer = os.pipe()
    os.write(writer, text.encode())
    os.close(writer)
    return reader
