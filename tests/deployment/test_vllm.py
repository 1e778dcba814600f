"""vLLM on a host: a job with a key and a loopback port, by a stand-in for its program (its build is 3.5 GB)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from backend.deployment.chat import chat
from backend.deployment.gate import DeploymentRefused, Terms
from backend.deployment.serving import deployments, stop
from backend.deployment.steps import DeploymentFailed
from backend.deployment.vllm import deploy_vllm, lora_rank
from backend.hosts.catalog import open_named_host
from backend.hosts.jobs import cancel_job
from backend.hosts.launching import launch_command
from backend.registry.catalog import register
from backend.settings import Workspace
from tests.fixtures.workspace_hosts import Loop
from tests.servers.vllm_program import install

UNJUDGED = Terms(unevaluated="a test of vLLM")


async def test_an_adapter_is_served_beside_its_base_until_it_is_stopped(
    ws: Workspace, loop_host: Loop, small_model: Path, small_adapter: Path, tmp_path: Path
) -> None:
    program = install(tmp_path)
    await register(ws, "tuned", "adapter", str(small_adapter), "loop", details={"base": str(small_model)})
    made = await deploy_vllm(
        ws,
        "tuned",
        host="loop",
        name="coder",
        program=str(program),
        arguments=("--enforce-eager",),
        terms=UNJUDGED,
    )
    assert (made.state, made.kind) == ("serving", "vllm")
    started = json.loads((tmp_path / "started.json").read_text())
    assert started["argv"] == [
        "serve", str(small_model), "--host", "127.0.0.1", "--port", str(made.details["port"]), "--enable-lora",
        "--max-lora-rank", "8", "--lora-modules", f"coder={small_adapter}", "--enforce-eager",
    ]  # fmt: skip
    assert (started["has_key"], started["key_in_argv"]) == (True, False)
    key_file = Path(str(made.details["key_file"]))
    assert key_file.stat().st_mode & 0o077 == 0
    key = key_file.read_text()
    for table in ("jobs", "deployments", "requests"):
        for row in await ws.db.fetch_all(f"SELECT * FROM {table}"):
            assert key not in str(tuple(row))
    async with chat(ws, "coder", "Load A") as reply:
        assert "".join([piece async for piece in reply]) == "You said: Load A"
    assert [row.state for row in await deployments(ws)] == ["serving"]
    await stop(ws, "coder")
    assert [row.state for row in await deployments(ws)] == ["stopped"]
    assert not key_file.exists()
    async with asyncio.timeout(30), open_named_host(ws, "loop") as host:
        while not (await host.status(str(made.job_id))).ended:
            await asyncio.sleep(0.05)


async def test_a_killed_one_is_told(ws: Workspace, small_model: Path, tmp_path: Path) -> None:
    program = install(tmp_path)
    made = await deploy_vllm(
        ws, f"path:{small_model}", host="local", name="coder", program=str(program), terms=UNJUDGED
    )
    started = json.loads((tmp_path / "started.json").read_text())
    assert started["argv"][-2:] == ["--served-model-name", "coder"]
    async with open_named_host(ws, "local") as host:
        status = await host.status(str(made.job_id))
    assert status.pid is not None
    os.kill(status.pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        while (row := (await deployments(ws))[0]).state == "serving":
            await asyncio.sleep(0.05)
    assert row.state == "failed"
    assert row.error is not None
    assert "serve it again" in row.error


async def test_running_jobs_keep_their_card(ws: Workspace, small_model: Path, tmp_path: Path) -> None:
    program = install(tmp_path)
    job = await launch_command(ws, "local", (sys.executable, "-c", "import time; time.sleep(60)"))
    with pytest.raises(DeploymentRefused, match=f"hold or wait for its cards: {job.id}"):
        await deploy_vllm(
            ws, f"path:{small_model}", host="local", name="coder", program=str(program), terms=UNJUDGED
        )
    assert await deployments(ws) == []
    await cancel_job(ws, job.id)


async def test_one_that_ends_says_why(ws: Workspace, small_model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "vllm"
    broken.write_text("#!/bin/sh\necho 'no kernel image for this card' >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(DeploymentFailed, match="no kernel image for this card"):
        await deploy_vllm(
            ws, f"path:{small_model}", host="local", name="coder", program=str(broken), terms=UNJUDGED
        )
    assert [row.state for row in await deployments(ws)] == ["failed"]
    with pytest.raises(DeploymentFailed, match="has no vllm"):
        await deploy_vllm(ws, f"path:{small_model}", host="local", name="coder", terms=UNJUDGED)


def test_the_rank_is_one_that_vllm_takes() -> None:
    assert [lora_rank(rank) for rank in (1, 8, 9, 64, 300)] == [8, 8, 16, 64, 320]
    with pytest.raises(DeploymentFailed, match="at most 512"):
        lora_rank(513)
