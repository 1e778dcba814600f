"""A model as one GGUF file, for llama.cpp and Ollama: merged first where it is an adapter, then converted."""

from __future__ import annotations

from backend.contract.job import ConvertParameters, JobSpec
from backend.deployment.converter import converter_folder
from backend.deployment.merging import merged_of
from backend.deployment.room import BYTES_OF, convert_need, require_room, weights_in
from backend.deployment.steps import DeploymentFailed, finished_job, made_before, registered
from backend.hosts.catalog import open_named_host
from backend.hosts.mirror import OnEvent
from backend.hosts.placing import place_folder, place_model
from backend.registry.catalog import register, safe_name, show_model
from backend.registry.references import ResolvedModel, resolve, weights_of
from backend.settings import Workspace
from backend.store import models
from backend.store.models import Model
from backend.training.runs import ready
from remote import Host


async def convert_to_gguf(
    ws: Workspace,
    model: str,
    *,
    outtype: str = "f16",
    host: str | None = None,
    name: str | None = None,
    on_event: OnEvent | None = None,
) -> Model:
    """The GGUF of a model, registered as `<name>-<outtype>` unless a name is given; made once. `outtype` is
    f32, f16, bf16 or q8_0. What is a GGUF already is registered as it is.

    Raises DeploymentFailed, ModelReferenceError, TrainingRefused (no libraries there), HostError.
    """
    resolved = await resolve(ws, model)
    if resolved.kind == "gguf":
        return await _known(ws, resolved, name)
    resolved = await weights_of(ws, model)
    if resolved.kind == "hub":
        raise DeploymentFailed(
            f"{model} is a name on a hub: fetch its folder to the host and give path:FOLDER to convert it"
        )
    where = host or resolved.host or "local"
    name = name or f"{safe_name(resolved.name)}-{outtype}"
    source = resolved
    if resolved.kind == "adapter":
        merged = await merged_of(ws, resolved, where, None, on_event)
        source = await resolve(ws, merged.name)
    async with open_named_host(ws, where) as remote:
        probe = await ready(remote)
        found = await made_before(ws, remote, probe, name, "gguf", source.reference)
        if found is not None:
            return found
        placed = await place_model(ws, remote, probe, source)
        weights = await weights_in(remote, probe, placed.location)
        if weights is not None and outtype in BYTES_OF:
            require_room(probe, convert_need(weights, outtype), f"converting {resolved.name} to {outtype}")
        parameters = ConvertParameters(
            model=placed.location,
            output_dir=f"{probe.root}/models/{name}",
            outtype=outtype,
            converter_dir=await _converter(ws, remote),
        )
        await finished_job(ws, remote, JobSpec("convert", parameters), on_event)
    return await registered(ws, name, source.reference, {"outtype": outtype})


async def _converter(ws: Workspace, host: Host) -> str:
    """The converter's folder on the host, sent along where it is another machine (4 MB, once)."""
    here = converter_folder(ws)
    if here is None:
        return ""  # the host may have its own: $HAFS_GGUF_CONVERTER there
    return str(here) if host.name == "local" else await place_folder(host, here, "tools/gguf-converter")


async def _known(ws: Workspace, gguf: ResolvedModel, name: str | None) -> Model:
    known = await models.by_name(ws.db, name or gguf.name)
    if known is not None and known.location == gguf.location:
        return known
    await register(ws, name or safe_name(gguf.name), "gguf", gguf.location, gguf.host)
    return await show_model(ws, name or safe_name(gguf.name))
