"""The registry's rows: models listed, shown and registered, by hand or when the job that made one ends."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from typing import Any

from backend.settings import Workspace
from backend.store import Queries, Transaction
from backend.store import models as rows
from backend.store.jobs import Job
from backend.store.models import Model, ModelKind

_MADE: dict[str, ModelKind] = {
    "sft": "adapter",
    "dpo": "adapter",
    "merge": "merged",
    "convert": "gguf",
    "prepare_base": "base",
}
# The parameter of a job's specification that names what the model was made from.
_SOURCE = {"sft": "base_model", "dpo": "sft_model", "merge": "adapter", "convert": "model"}


class ModelNotFound(LookupError):
    """No model of this name is registered."""


async def list_models(ws: Workspace) -> list[Model]:
    """Newest first."""
    return await rows.every(ws.db)


async def show_model(ws: Workspace, name: str) -> Model:
    """Raises ModelNotFound, naming those there are."""
    model = await rows.by_name(ws.db, name)
    if model is None:
        known = ", ".join(one.name for one in await rows.every(ws.db)) or "none yet"
        raise ModelNotFound(f"no model named {name}; registered: {known}")
    return model


async def register(
    ws: Workspace,
    name: str,
    kind: ModelKind,
    location: str,
    host: str,
    *,
    parent: str | None = None,
    run_id: int | None = None,
    size_bytes: int | None = None,
    details: Mapping[str, Any] | None = None,
) -> Model:
    """Register a model, or say anew what the one of that name is. `parent` names a model or a reference."""
    async with ws.db.transaction() as transaction:
        await rows.put(
            transaction,
            name=name,
            kind=kind,
            location=location,
            host=host,
            parent=parent,
            run_id=run_id,
            size_bytes=size_bytes,
            details=json.dumps(dict(details or {})),
        )
    return await show_model(ws, name)


async def register_artifact(
    transaction: Transaction, job: Job, artifact: str, size_bytes: int | None
) -> None:
    """Register what an ended job made, if that is a model: the mirror calls it with the job's end.

    A run's adapter is registered under the run's name, any other model under the name of its output folder.
    """
    kind = _MADE.get(job.kind)
    if kind is None:
        return
    parameters = job.spec.get("parameters", {})
    run = await transaction.fetch_one("SELECT id, name FROM runs WHERE job_id = ?", (job.id,))
    source = str(parameters.get(_SOURCE.get(job.kind, ""), ""))
    name = str(run["name"]) if run else folder_name(str(parameters.get("output_dir", artifact)))
    await rows.put(
        transaction,
        name=name,
        kind=kind,
        location=artifact,
        host=job.host,
        parent=await name_of_place(transaction, job.host, source) if source else None,
        run_id=int(run["id"]) if run else None,
        size_bytes=size_bytes,
        details=json.dumps({"job": job.id, "base": parameters.get("base_model", "")}),
    )


async def name_of_place(queries: Queries, host: str, location: str) -> str:
    """The name of the model at a place of a host, else the place as a reference (`path:...`, `hub:...`)."""
    name = await queries.fetch_value(
        "SELECT name FROM models WHERE host = ? AND location = ? ORDER BY id DESC", (host, location)
    )
    if name is not None:
        return str(name)
    return location if location.startswith("hub:") else f"path:{location}"


def safe_name(text: str) -> str:
    """A name that can be a folder: letters, digits, `.`, `_` and `-`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "model"


def folder_name(path: str) -> str:
    """The last part of a path of either kind of system."""
    return posixpath.basename(path.replace("\\", "/").rstrip("/"))
