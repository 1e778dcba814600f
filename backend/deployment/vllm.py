"""Option B: a model served by vLLM on a host, as a job that no session owns.

It listens on the host's loopback only and is reached through the host's own link. Its API key is made on the
host, lies there in a file that only its user reads, and enters vLLM's environment from it: it is on no command
line, in no database, and on this machine only in memory.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from backend.deployment.folders import published
from backend.deployment.gate import STANDARD, DeploymentRefused, Terms, require_verdict
from backend.deployment.steps import DeploymentFailed, smoke
from backend.hosts.catalog import open_named_host
from backend.hosts.jobs import cancel_job
from backend.hosts.launching import launch_command, new_job_id
from backend.hosts.placing import place_model
from backend.providers import Provider, ProviderConfig, ProviderError, open_provider
from backend.registry.references import weights_of
from backend.settings import Workspace
from backend.store import deployments as rows
from backend.store import jobs
from backend.store.deployments import Deployment
from remote import Host, HostError, Probe

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The values of `--max-lora-rank` that vLLM takes (its LoRAConfig)."""
_START_S = 900.0
_LOOK_S = 0.5
_TIMEOUT_S = 120.0

# Fixed text; all that varies comes as arguments. The file is made with its mode, so it is never readable.
_WITH_KEY = """
import os, secrets, sys
path = sys.argv[1]
os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
    file.write(secrets.token_urlsafe(32))
with open(path) as file:
    os.environ["VLLM_API_KEY"] = file.read()
os.execvp(sys.argv[2], sys.argv[2:])
"""
_LOOK_AROUND = """
import json, os, shutil, socket, sys
beside = os.path.join(os.path.dirname(sys.executable), "vllm")
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
print(json.dumps({"vllm": beside if os.access(beside, os.X_OK) else shutil.which("vllm") or "", "port": port}))
"""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is started: the program's arguments without the key, the name it answers to, and its port."""

    argv: tuple[str, ...]
    alias: str
    port: int


async def deploy_vllm(
    ws: Workspace,
    model: str,
    *,
    host: str,
    name: str,
    program: str = "",
    port: int = 0,
    beside_jobs: bool = False,
    arguments: tuple[str, ...] = (),
    terms: Terms = STANDARD,
    start_timeout_s: float = _START_S,
) -> Deployment:
    """Serve a model's folder, or an adapter beside its base (`--enable-lora`), by the vLLM of a host. It has
    answered a first question before it takes the place of the version that served until now, which is then
    ended.

    `program` is vLLM's path where it lies neither beside the host's Python nor on its PATH; `port` 0 takes a
    free one; `arguments` go to vLLM as they are. `beside_jobs` starts it though other jobs are on the host.
    Raises DeploymentRefused (the gate; Windows; the host's cards are in use), DeploymentFailed,
    ModelReferenceError, HostError.
    """
    verdict = await require_verdict(ws, model, terms)
    weights = await weights_of(ws, model)
    older = await rows.current(ws.db, name)
    await _require_the_card(ws, host, older, beside_jobs)
    job_id = new_job_id("vllm")
    async with open_named_host(ws, host) as remote:
        probe = await remote.probe()
        if probe.os == "windows":
            raise DeploymentRefused(
                f"{host} is native Windows, on which vLLM does not run. Make its WSL a host of its own (an sshd "
                "inside it, on another port), or serve it there by Ollama: hafs-tui deploy ollama"
            )
        placed = await place_model(ws, remote, probe, weights)
        rank = await _rank(remote, placed.location) if weights.kind == "adapter" else None
        if rank is not None and not placed.base:
            raise DeploymentFailed(f"{model} is an adapter whose base is not known: vLLM refuses one alone")
        plan = await _plan(remote, probe, placed.location, placed.base, rank, name, program, port, arguments)
    key_file = f"{probe.root}/keys/{job_id}"
    details = {"port": plan.port, "alias": plan.alias, "key_file": key_file, "gate": verdict, "rank": rank}
    async with ws.db.transaction() as transaction:
        number = await rows.insert(
            transaction,
            name=name,
            kind="vllm",
            model=weights.reference,
            host=host,
            details=json.dumps(details),
        )
    try:
        argv = (probe.python, "-c", _WITH_KEY, key_file, *plan.argv)
        await launch_command(ws, host, argv, kind="vllm", job_id=job_id, now=True)
        async with ws.db.transaction() as transaction:
            endpoint = f"http://127.0.0.1:{plan.port}/v1"
            await rows.update(transaction, number, "starting", job_id=job_id, endpoint=endpoint)
        row = await _row(ws, number)
        await _up(ws, row, start_timeout_s)
        async with vllm_at(ws, row) as provider:
            await smoke(provider, plan.alias)
    except BaseException as error:
        async with ws.db.transaction() as transaction:
            await rows.update(transaction, number, "failed", error=str(error) or type(error).__name__)
        if await jobs.by_id(ws.db, job_id) is not None:
            await asyncio.shield(cancel_job(ws, job_id))
        raise
    await published(ws, number, older)
    async with ws.db.transaction() as transaction:
        await rows.update(transaction, number, "serving")
    if older is not None and older.kind == "vllm" and older.state == "serving":
        await end_job(ws, older)
    return await _row(ws, number)


@asynccontextmanager
async def vllm_at(ws: Workspace, row: Deployment, timeout_s: float = _TIMEOUT_S) -> AsyncIterator[Provider]:
    """The provider of a vLLM deployment, through its host's link, with the key that lies there."""
    async with open_named_host(ws, row.host) as host:
        key = (await host.read(str(row.details["key_file"]))).decode().strip()
        port = await host.forward(int(row.details["port"]))
        url = f"http://127.0.0.1:{port}/v1"
        provider = open_provider(ProviderConfig("openai", url, key, timeout_s))
        try:
            yield provider
        finally:
            await provider.aclose()


async def problem_of(ws: Workspace, row: Deployment) -> str:
    """Why a vLLM deployment does not serve, "" where it does; a host that cannot be asked says so."""
    try:
        async with open_named_host(ws, row.host) as host:
            status = await host.status(str(row.job_id))
        if status.ended:
            return f"its job {row.job_id} is {status.state}"
        async with vllm_at(ws, row, 5.0) as provider:
            await provider.models()
    except ProviderError as error:
        return f"it does not answer: {error}"
    return ""


async def end_job(ws: Workspace, row: Deployment) -> None:
    """End the vLLM of a deployment, and take its key from the host. Raises HostError."""
    if row.job_id is None:
        return
    await cancel_job(ws, row.job_id)
    async with open_named_host(ws, row.host) as host:
        await host.remove(str(row.details["key_file"]))


def lora_rank(wanted: int) -> int:
    """The smallest `--max-lora-rank` that holds an adapter of that rank. Raises DeploymentFailed."""
    fits = [rank for rank in RANKS if rank >= wanted]
    if not fits:
        raise DeploymentFailed(f"an adapter of rank {wanted}: vLLM takes at most {RANKS[-1]}; merge it first")
    return fits[0]


async def _require_the_card(ws: Workspace, host: str, older: Deployment | None, beside_jobs: bool) -> None:
    own = older.job_id if older is not None else None
    running = [job for job in await jobs.not_ended(ws.db) if job.host == host and job.id != own]
    if running and not beside_jobs:
        named = ", ".join(f"{job.id} ({job.state})" for job in running[:5])
        raise DeploymentRefused(
            f"{host} has jobs that hold or wait for its cards: {named}. Wait for them, or start vLLM beside them "
            "with --beside-jobs (it takes most of a card's memory: say --arg=--gpu-memory-utilization=0.4)"
        )


async def _rank(host: Host, adapter: str) -> int:
    return int(json.loads(await host.read(f"{adapter}/adapter_config.json"))["r"])


async def _plan(
    host: Host,
    probe: Probe,
    location: str,
    base: str,
    rank: int | None,
    name: str,
    program: str,
    port: int,
    arguments: tuple[str, ...],
) -> _Plan:
    looked = await host.run((probe.python, "-c", _LOOK_AROUND))
    if looked.exit_code != 0:
        raise DeploymentFailed(f"{probe.python} on {probe.host}: {looked.stderr.decode(errors='replace')}")
    found = json.loads(looked.stdout)
    vllm = program or str(found["vllm"])
    if not vllm:
        raise DeploymentFailed(
            f"{probe.host} has no vllm beside {probe.python} or on its PATH. Install it there in an environment "
            "of its own (python -m venv ~/vllm && ~/vllm/bin/pip install vllm), and give --program ~/vllm/bin/vllm"
        )
    port = port or int(found["port"])
    served = (base if rank is not None else location).removeprefix("hub:")
    argv = [vllm, "serve", served, "--host", "127.0.0.1", "--port", str(port)]
    if rank is None:
        argv += ["--served-model-name", name]
    else:
        argv += [
            "--enable-lora",
            "--max-lora-rank",
            str(lora_rank(rank)),
            "--lora-modules",
            f"{name}={location}",
        ]
    return _Plan((*argv, *arguments), name, port)


async def _up(ws: Workspace, row: Deployment, timeout_s: float) -> None:
    """Waits until it answers. Raises DeploymentFailed with the end of its log where its job ends before."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    async with open_named_host(ws, row.host) as host:
        while True:
            status = await host.status(str(row.job_id))
            if status.ended:
                log = (await host.read(status.log_path)).decode("utf-8", "replace").strip()
                raise DeploymentFailed(f"vLLM ended before it answered ({status.state}):\n{log[-1500:]}")
            if await _answers(ws, row):
                return
            if asyncio.get_running_loop().time() > deadline:
                raise DeploymentFailed(f"vLLM did not answer within {timeout_s:g} s")
            await asyncio.sleep(_LOOK_S)


async def _answers(ws: Workspace, row: Deployment) -> bool:
    try:
        async with vllm_at(ws, row, 5.0) as provider:
            return str(row.details["alias"]) in await provider.models()
    except (ProviderError, HostError):
        return False  # no key yet, or nobody at its port: its job says whether it may still come


async def _row(ws: Workspace, number: int) -> Deployment:
    row = await rows.by_id(ws.db, number)
    if row is None:
        raise LookupError(f"deployment {number} is gone")
    return row
