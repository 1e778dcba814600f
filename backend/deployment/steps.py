"""What the steps of a deployment share: their error, names for what they make, and jobs run to their end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backend.contract.job import JobSpec
from backend.hosts.launching import launch_worker
from backend.hosts.mirror import OnEvent, wait_for
from backend.hosts.placing import size_of
from backend.providers import Provider, ProviderError, ask, complete
from backend.registry.catalog import register, show_model
from backend.settings import Workspace
from backend.store import models
from backend.store.deployments import Deployment
from backend.store.jobs import Job
from backend.store.models import Model, ModelKind
from remote import Host, Probe

SMOKE_PROMPT = "Say hello in one short sentence."
_SMOKE_TOKENS = 24


class DeploymentFailed(Exception):
    """A deployment, or a step towards one, that did not come about; what answered before still does."""


async def finished_job(ws: Workspace, host: Host, spec: JobSpec, on_event: OnEvent | None) -> Job:
    """Launch a worker and wait until it has ended well. Raises DeploymentFailed with its last words."""
    job = await launch_worker(ws, host, spec)
    job = await wait_for(ws, job.id, on_event)
    if job.state != "done":
        raise DeploymentFailed(f"{spec.kind} on {job.host} is {job.state} ({job.id}).\n{job.error or ''}")
    return job


async def made_before(
    ws: Workspace, host: Host, probe: Probe, name: str, kind: ModelKind, parent: str
) -> Model | None:
    """The registered model of that name, if it was made from the same parent and still lies there."""
    found = await models.by_name(ws.db, name)
    if found is None or (found.kind, found.parent, found.host) != (kind, parent, host.name):
        return None
    return found if await size_of(host, probe, found.location) is not None else None


async def registered(ws: Workspace, name: str, parent: str, details: Mapping[str, Any]) -> Model:
    """The model that a job has just made, with the name of what it was made from: its mirror knows places only."""
    made = await show_model(ws, name)
    return await register(
        ws,
        name,
        made.kind,
        made.location,
        made.host,
        parent=parent,
        size_bytes=made.size_bytes,
        details={**made.details, **details},
    )


async def smoke(provider: Provider, model: str) -> str:
    """A first answer, before anything older goes. Raises DeploymentFailed where none comes."""
    try:
        request = ask(model, SMOKE_PROMPT, temperature=0.0, max_tokens=_SMOKE_TOKENS)
        answer = await complete(provider, request, accept_cut=True)
    except ProviderError as error:
        raise DeploymentFailed(f"{model} does not answer a first question: {error}") from error
    return answer.text


def origin(row: Deployment) -> int:
    """The version that a deployment's content is of: its own, or the one that a rollback brought back."""
    return int(row.details.get("version_of", row.version))


def unsafe_files(folder: Path) -> list[str]:
    """Files that run code when a model is loaded: pickles of weights, and programs."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".py")
    )
