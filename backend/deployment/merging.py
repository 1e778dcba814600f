"""Folds an adapter into its base, on the host where it lies, and registers the model that comes of it."""

from __future__ import annotations

from backend.contract.job import JobSpec, MergeParameters
from backend.deployment.room import merge_need, require_room, weights_in
from backend.deployment.steps import DeploymentFailed, finished_job, made_before, registered
from backend.hosts.catalog import open_named_host
from backend.hosts.mirror import OnEvent
from backend.hosts.placing import place_model
from backend.registry.catalog import safe_name
from backend.registry.references import ResolvedModel, weights_of
from backend.settings import Workspace
from backend.store.models import Model
from backend.training.runs import ready


async def merge_adapter(
    ws: Workspace,
    model: str,
    *,
    host: str | None = None,
    name: str | None = None,
    on_event: OnEvent | None = None,
) -> Model:
    """The merged model of an adapter (`run:NAME`, `path:FOLDER`), registered as `<name>-merged` unless a name
    is given. It is made on `host`, by default where the adapter lies, and once.

    Raises DeploymentFailed, ModelReferenceError, TrainingRefused (no libraries there), HostError.
    """
    adapter = await weights_of(ws, model)
    if adapter.kind != "adapter":
        raise DeploymentFailed(f"{model} is a whole model: it needs no merging")
    return await merged_of(ws, adapter, host or adapter.host or "local", name, on_event)


async def merged_of(
    ws: Workspace, adapter: ResolvedModel, host: str, name: str | None, on_event: OnEvent | None
) -> Model:
    name = name or f"{safe_name(adapter.name)}-merged"
    async with open_named_host(ws, host) as remote:
        probe = await ready(remote)
        found = await made_before(ws, remote, probe, name, "merged", adapter.reference)
        if found is not None:
            return found
        placed = await place_model(ws, remote, probe, adapter)
        base = await weights_in(remote, probe, placed.base or adapter.base or "")
        if base is not None:
            require_room(probe, merge_need(base), f"merging {adapter.name}")
        folder = f"{probe.root}/models/{name}"
        parameters = MergeParameters(adapter=placed.location, base_model=placed.base, output_dir=folder)
        await finished_job(ws, remote, JobSpec("merge", parameters), on_event)
    return await registered(ws, name, adapter.reference, {"base": placed.base})
