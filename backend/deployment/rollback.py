"""Brings back the version that answered before: as a new version, so that the history only grows."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from backend.deployment.folders import kept_folder, published
from backend.deployment.ollama import ollama_at, point
from backend.deployment.serving import ServedModel, find_deployment, lease_of, serve_version
from backend.deployment.steps import DeploymentFailed, origin
from backend.providers import ProviderError
from backend.settings import Workspace
from backend.store import deployments as rows
from backend.store import leases
from backend.store.deployments import Deployment

_LOOK_S = 0.1
_HAND_OVER_S = 120.0


async def rollback(ws: Workspace, name: str) -> Deployment:
    """Make the version before the current one current again.

    An Ollama name is given to that version's tag, a folder is put back into place. A GGUF is served again by
    the process that serves the current version, which answers until the other does; where no such process
    is left, its row is made current and stopped, and `serve_again` serves it. Raises DeploymentFailed.
    """
    current = await find_deployment(ws, name)
    before = await _before(ws, current)
    if before.kind == "vllm":
        raise DeploymentFailed(
            f"{name} v{before.version} is served by vLLM, which holds one version at a time. Bring it back with: "
            f"hafs-tui deploy vllm {before.model} --host {before.host} --name {name}"
        )
    details = {**before.details, "version_of": origin(before)}
    if await _can_hand_over(ws, current):
        details["asked_of"] = current.id
    async with ws.db.transaction() as transaction:
        number = await rows.insert(
            transaction,
            name=name,
            kind=before.kind,
            model=before.model,
            host=before.host,
            details=json.dumps(details),
        )
    try:
        if before.kind == "ollama":
            async with ollama_at(ws, before.host, before.endpoint) as server:
                await point(server, str(details["tag"]), str(details["version_tag"]))
        elif before.kind == "hf":
            folder = Path(str(details["folder"]))
            kept = kept_folder(folder, origin(before))
            await asyncio.to_thread(_swap_back, folder, kept, kept_folder(folder, origin(current)))
    except (OSError, ProviderError) as error:
        async with ws.db.transaction() as transaction:
            await rows.update(transaction, number, "failed", error=str(error))
        raise DeploymentFailed(f"{name} stays at version {current.version}: {error}") from error
    if "asked_of" in details:
        return await _handed_over(ws, number, current)
    if before.kind == "gguf":
        return await _stopped(ws, number, current)
    async with ws.db.transaction() as transaction:
        await rows.update(transaction, number, "starting", endpoint=before.endpoint)
    return await published(ws, number, current)


async def serve_again(
    ws: Workspace, row: Deployment, *, on_ready: Callable[[ServedModel], None] | None = None
) -> Deployment:
    """Serve the stopped version that a rollback made current, from this process, until it is stopped.
    Raises like `serve_until_stopped`."""
    async with ws.db.transaction() as transaction:
        await rows.update(transaction, row.id, "starting")
    return await serve_version(ws, row.id, on_ready=on_ready)


async def _can_hand_over(ws: Workspace, current: Deployment) -> bool:
    """Whether a process serves it that looks for rollbacks."""
    if current.kind != "gguf" or current.state != "serving" or not current.details.get("hands_over"):
        return False
    return await leases.holder(ws.db, lease_of(current.id)) is not None


async def _handed_over(ws: Workspace, number: int, current: Deployment) -> Deployment:
    """The version brought back, once the process that was asked serves it."""
    for _ in range(int(_HAND_OVER_S / _LOOK_S)):
        row = await rows.by_id(ws.db, number)
        if row is None or row.state == "failed":
            raise DeploymentFailed(
                f"{current.name} stays at version {current.version}: {row.error if row else 'its row is gone'}"
            )
        if row.state != "starting":
            return row
        if await leases.holder(ws.db, lease_of(current.id)) is None and (
            await leases.holder(ws.db, lease_of(number)) is None
        ):
            return await _stopped(ws, number, current)
        await asyncio.sleep(_LOOK_S)
    async with ws.db.transaction() as transaction:
        await rows.update(transaction, number, "failed", error="its server was not up in time")
    raise DeploymentFailed(f"{current.name}: the version before was not up within {_HAND_OVER_S:g} s")


async def _before(ws: Workspace, current: Deployment) -> Deployment:
    older = [
        row
        for row in await rows.every(ws.db)
        if row.name == current.name and row.version < origin(current) and row.state in ("replaced", "stopped")
    ]
    if not older:
        raise DeploymentFailed(f"{current.name} has no version before {origin(current)} to go back to")
    return older[0]


async def _stopped(ws: Workspace, number: int, current: Deployment) -> Deployment:
    async with ws.db.transaction() as transaction:
        await rows.update(transaction, current.id, "replaced")
        await rows.update(transaction, number, "stopped")
        row = await rows.by_id(transaction, number)
    if row is None:
        raise LookupError(f"deployment {number} is gone")
    return row


def _swap_back(folder: Path, kept: Path, aside: Path) -> None:
    """The kept folder in place, the current one kept under its own version."""
    if not kept.is_dir():
        raise FileNotFoundError(f"{kept} is not there any more")
    if aside.exists():
        shutil.rmtree(aside)
    os.replace(folder, aside)
    os.replace(kept, folder)
