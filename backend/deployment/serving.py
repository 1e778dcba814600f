"""Serves a GGUF by llama.cpp in a child of this process, and tells truly which deployments answer.

A served deployment holds a lease for as long as its process lives, so that any other process sees at once
when it is gone. Its row is also how it is asked to stop: whoever finds it moved on ends.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import ClientError

from backend.deployment.answering import reachable
from backend.deployment.gate import STANDARD, Terms, require_parity, require_verdict
from backend.deployment.gguf import convert_to_gguf
from backend.deployment.parity import Parity, check_llama_cpp, trained_on
from backend.deployment.steps import DeploymentFailed, smoke
from backend.deployment.vllm import end_job, problem_of
from backend.hosts.mirror import OnEvent
from backend.hosts.placing import fetch_file
from backend.providers import Provider, ProviderError, open_provider
from backend.providers.embedded import EmbeddedServer
from backend.settings import Workspace
from backend.store import deployments as rows
from backend.store import leases, models
from backend.store.clock import now
from backend.store.deployments import Deployment
from backend.store.models import Model
from remote import HostError

_LOOK_S = 0.3
_JUST_MADE_S = 5.0


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that answers now, at an OpenAI-compatible endpoint on loopback, under the name `alias`."""

    deployment: Deployment
    endpoint: str
    alias: str
    provider: Provider
    server: EmbeddedServer


@asynccontextmanager
async def serve_gguf(
    ws: Workspace,
    model: str,
    *,
    name: str,
    outtype: str = "f16",
    terms: Terms = STANDARD,
    on_event: OnEvent | None = None,
) -> AsyncIterator[ServedModel]:
    """Serve a model for a block, as the next version of the deployment `name`; converted first where it is no
    GGUF. It has been compared with what it was trained on and has answered a first question before it takes
    the place of the version that served until now.

    Raises DeploymentRefused by the gate or the comparison, DeploymentFailed, ModelReferenceError,
    TrainingRefused, HostError.
    """
    number = await _new_version(ws, model, name, outtype, terms, on_event)
    async with _served(ws, number, terms) as served:
        yield served


async def serve_until_stopped(
    ws: Workspace,
    model: str,
    *,
    name: str,
    outtype: str = "f16",
    terms: Terms = STANDARD,
    on_ready: Callable[[ServedModel], None] | None = None,
    on_event: OnEvent | None = None,
) -> Deployment:
    """Serve a model until `stop` or a newer version ends it; its row then. A rollback of it, asked for from
    anywhere, is served by this process in its place.

    Raises like `serve_gguf`, and DeploymentFailed when the server ends by itself.
    """
    number = await _new_version(ws, model, name, outtype, terms, on_event)
    return await serve_version(ws, number, terms=terms, on_ready=on_ready)


async def serve_version(
    ws: Workspace,
    number: int,
    *,
    terms: Terms = STANDARD,
    on_ready: Callable[[ServedModel], None] | None = None,
) -> Deployment:
    """Serve the version of that id (one that waits for its server: new, or brought back) until it ends, and
    the one that a rollback brings back after it. Raises like `serve_until_stopped`."""
    async with AsyncExitStack() as stack:
        stack.push_async_exit(current := AsyncExitStack())
        served = await current.enter_async_context(_served(ws, number, terms, hands_over=True))
        while True:
            if on_ready is not None:
                on_ready(served)
            back = await _ended_or_asked_back(ws, served)
            if back is None:
                break
            newer = AsyncExitStack()
            stack.push_async_exit(newer)
            try:
                served = await newer.enter_async_context(_served(ws, back, terms, hands_over=True))
            except DeploymentFailed:
                continue  # its row says why, and the version that serves goes on
            await current.aclose()
            current = newer
        died = not served.server.alive
    row = await rows.by_id(ws.db, served.deployment.id)
    if row is None or (died and row.state == "failed"):
        raise DeploymentFailed(f"{served.alias}: its server ended by itself; start it again")
    return row


async def _new_version(
    ws: Workspace, model: str, name: str, outtype: str, terms: Terms, on_event: OnEvent | None
) -> int:
    verdict = await require_verdict(ws, model, terms)
    gguf = await convert_to_gguf(ws, model, outtype=outtype, on_event=on_event)
    file = await _here(ws, gguf)
    details = json.dumps({"gguf": str(file), "alias": name, "model": gguf.name, "gate": verdict})
    async with ws.db.transaction() as transaction:
        return await rows.insert(
            transaction, name=name, kind="gguf", model=gguf.name, host="local", details=details
        )


async def _ended_or_asked_back(ws: Workspace, served: ServedModel) -> int | None:
    """Waits until a version is over (None), or a rollback asks for another: its id."""
    while served.server.alive:
        listed = [row for row in await rows.every(ws.db) if row.name == served.deployment.name]
        if not any(row.id == served.deployment.id and row.state == "serving" for row in listed):
            return None
        for row in listed:
            if row.state == "starting" and row.details.get("asked_of") == served.deployment.id:
                return row.id
        await asyncio.sleep(_LOOK_S)
    return None


@asynccontextmanager
async def _served(
    ws: Workspace, number: int, terms: Terms, *, hands_over: bool = False
) -> AsyncIterator[ServedModel]:
    row = await rows.by_id(ws.db, number)
    if row is None:
        raise LookupError(f"deployment {number} is gone")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(leases.hold(ws.db, lease_of(number)))
        try:
            served = await _start(ws, row, terms, hands_over, stack)
        except BaseException as error:
            async with ws.db.transaction() as transaction:
                await rows.update(transaction, number, "failed", error=str(error) or type(error).__name__)
            if isinstance(error, ProviderError | ClientError):
                raise DeploymentFailed(f"{row.model} cannot be served: {error}") from error
            raise
        try:
            yield served
        finally:
            await _ended(ws, number, served.server)


async def deployments(ws: Workspace) -> list[Deployment]:
    """Every deployment, newest first; what claims to serve and does not is marked as failed first."""
    listed = await rows.every(ws.db)
    for row in listed:
        if row.state in ("starting", "serving") and row.kind == "gguf":
            await _check(ws, row)
        elif row.state == "serving" and row.kind == "vllm" and row.job_id is not None:
            await _check_vllm(ws, row)
    return await rows.every(ws.db)


async def find_deployment(ws: Workspace, name: str) -> Deployment:
    """The version of a deployment that answers, else its newest. Raises DeploymentFailed for an unknown name."""
    row = await rows.current(ws.db, name)
    if row is None:
        known = ", ".join(sorted({one.name for one in await rows.every(ws.db)})) or "none yet"
        raise DeploymentFailed(f"no deployment named {name}; there are: {known}")
    return row


async def stop(ws: Workspace, name: str) -> Deployment:
    """End what serves under that name: its process sees it within half a second. A folder or a tag is only
    taken off the list of what is published; it stays where it is. Raises DeploymentFailed."""
    row = await find_deployment(ws, name)
    if row.state in ("serving", "starting", "published"):
        if row.kind == "vllm":
            await end_job(ws, row)
        async with ws.db.transaction() as transaction:
            await rows.update(transaction, row.id, "stopped")
    return await find_deployment(ws, name)


def lease_of(deployment_id: int) -> str:
    """The lease of the process that serves a deployment."""
    return f"deployment:{deployment_id}"


async def _here(ws: Workspace, gguf: Model) -> Path:
    return Path(gguf.location) if gguf.host == "local" else await fetch_file(ws, gguf.host, gguf.location)


async def _start(
    ws: Workspace, row: Deployment, terms: Terms, hands_over: bool, stack: AsyncExitStack
) -> ServedModel:
    """The server up, compared, asked a first question, and its row serving in the place of the one before."""
    settings = ws.settings.provider("embedded")
    alias = str(row.details["alias"])
    file = Path(str(row.details["gguf"]))
    server = await stack.enter_async_context(EmbeddedServer(file, alias, parallel=settings.parallel))
    provider = open_provider(server.config(settings.timeout_s))
    stack.push_async_callback(provider.aclose)
    details = {**row.details, "hands_over": hands_over}
    if "version_of" not in details:  # a version that is brought back was compared when it was new
        details["parity"] = require_parity(await _parity(ws, row, server), terms)
    await smoke(provider, alias)
    async with ws.db.transaction() as transaction:
        for other in await rows.every(transaction):
            if other.name == row.name and other.id != row.id and other.state in ("serving", "published"):
                await rows.update(transaction, other.id, "replaced")
        await rows.update(
            transaction, row.id, "serving", endpoint=server.base_url, details=json.dumps(details)
        )
        deployment = await rows.by_id(transaction, row.id)
    if deployment is None:
        raise LookupError(f"deployment {row.id} is gone")
    return ServedModel(deployment, server.base_url, alias, provider, server)


async def _parity(ws: Workspace, row: Deployment, server: EmbeddedServer) -> Parity:
    model = await models.by_name(ws.db, row.model)
    trained = await trained_on(ws, model) if model else f"not checked: {row.model} is not registered"
    if isinstance(trained, str):
        return Parity(0, notes=(trained,))
    return await check_llama_cpp(trained, server.base_url)


async def _ended(ws: Workspace, number: int, server: EmbeddedServer) -> None:
    """What the row says once its block is over: stopped, or failed where the server was gone before."""
    async with ws.db.transaction() as transaction:
        row = await rows.by_id(transaction, number)
        if row is not None and row.state in ("serving", "starting"):
            if server.alive:
                await rows.update(transaction, number, "stopped")
            else:
                await rows.update(transaction, number, "failed", error="its server ended by itself")


async def _check(ws: Workspace, row: Deployment) -> None:
    if row.state == "starting" and now() - row.created_at < _JUST_MADE_S:
        return  # its lease comes a moment after its row
    if await leases.holder(ws.db, lease_of(row.id)) is None:
        problem = "its process is gone"
    elif row.state == "serving" and row.endpoint and not await reachable(row.endpoint):
        problem = f"its endpoint {row.endpoint} does not answer"
    else:
        return
    await _found_gone(ws, row, problem)


async def _check_vllm(ws: Workspace, row: Deployment) -> None:
    """A host that cannot be asked now proves nothing: its row stays as it is."""
    try:
        problem = await problem_of(ws, row)
    except HostError:
        return
    if problem:
        await _found_gone(ws, row, problem)


async def _found_gone(ws: Workspace, row: Deployment, problem: str) -> None:
    async with ws.db.transaction() as transaction:
        again = await rows.by_id(transaction, row.id)
        if again is not None and again.state == row.state:
            await rows.update(transaction, row.id, "failed", error=f"{problem}; serve it again")
