"""What a model's name means: `hub:`, `path:`, `run:NAME[@checkpoint]`, `ollama:TAG`, `gguf:`, `api:`,
`deployment:`, or a name of the registry.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from backend.registry.catalog import folder_name
from backend.settings import Workspace
from backend.store import deployments, models, runs
from backend.store.models import Model
from backend.store.runs import Run

ReferenceKind = Literal["hub", "folder", "adapter", "gguf", "ollama", "api", "deployment"]
_ADAPTER_CONFIG = "adapter_config.json"
SCHEMES = ("hub", "path", "run", "ollama", "gguf", "api", "deployment")
WEIGHTS: tuple[ReferenceKind, ...] = ("hub", "folder", "adapter")

_OF_ROW: dict[str, ReferenceKind] = {
    "base": "folder",
    "merged": "folder",
    "adapter": "adapter",
    "gguf": "gguf",
    "ollama": "ollama",
    "api": "api",
}


class ModelReferenceError(LookupError):
    """A reference that means no model, or not one that can be used here; the message has the remedy."""


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model's kind and place. `location` is a path on `host`, a hub name, a tag, `provider/model`, or a
    deployment's name. `base` is the place of an adapter's base, where it is known. `name` is short, for
    people; `reference` resolves to the same model again."""

    kind: ReferenceKind
    location: str
    host: str
    name: str
    reference: str
    base: str | None = None

    @property
    def is_weights(self) -> bool:
        """Whether the training libraries can load it."""
        return self.kind in WEIGHTS


async def resolve(ws: Workspace, reference: str) -> ResolvedModel:
    """What a reference means. A bare name is looked up in the registry, then taken as a path where it looks
    like one, as a hub name (`owner/name`), or as an Ollama tag (`name:tag`).

    Raises ModelReferenceError.
    """
    scheme, _, rest = reference.partition(":")
    if scheme not in SCHEMES:
        return await _bare(ws, reference)
    if not rest:
        raise ModelReferenceError(f"{reference!r} names no model: something is expected after {scheme}:")
    match scheme:
        case "hub":
            return ResolvedModel("hub", f"hub:{rest}", "", rest, reference)
        case "path":
            return await _path(ws, rest)
        case "run":
            return await _run(ws, rest)
        case "ollama":
            tag, _, host = rest.partition("@")
            return ResolvedModel("ollama", tag, host or "local", tag, reference)
        case "gguf":
            return await _gguf(ws, rest)
        case "api":
            if "/" not in rest:
                raise ModelReferenceError(
                    f"{reference!r}: expected api:PROVIDER/MODEL, as in api:gemini/MODEL"
                )
            return ResolvedModel("api", rest, "", rest, reference)
        case _:
            if await deployments.current(ws.db, rest) is None:
                known = sorted({row.name for row in await deployments.every(ws.db)})
                raise ModelReferenceError(f"no deployment named {rest}; there are: {_or_none(known)}")
            return ResolvedModel("deployment", rest, "local", rest, reference)


async def weights_of(ws: Workspace, reference: str) -> ResolvedModel:
    """The weights that a reference stands for: a tag, a GGUF or a deployment is followed to what it was made
    from. Raises ModelReferenceError where that is not known.
    """
    resolved = await resolve(ws, reference)
    seen: set[str] = set()
    while not resolved.is_weights:
        parent = await _made_from(ws, resolved)
        if parent is None or parent in seen:
            raise ModelReferenceError(
                f"{reference} is no set of weights that can be trained, and the registry does not know what it "
                "was made from. Give its weights: hub:OWNER/NAME, path:FOLDER, or run:NAME"
            )
        seen.add(parent)
        resolved = await resolve(ws, parent)
    return resolved


async def _made_from(ws: Workspace, resolved: ResolvedModel) -> str | None:
    if resolved.kind == "deployment":
        row = await deployments.current(ws.db, resolved.location)
        return row.model if row else None
    for model in await models.every(ws.db):
        if _OF_ROW[model.kind] == resolved.kind and model.location == resolved.location:
            return model.parent
    return None


async def _bare(ws: Workspace, name: str) -> ResolvedModel:
    registered = await models.by_name(ws.db, name)
    if registered is not None:
        return await _registered(ws, registered)
    if (
        name[:1] in ("/", ".", "~")
        or "\\" in name
        or re.match(r"[A-Za-z]:[/\\]", name)
        or name.count("/") > 1
    ):
        return await _path(ws, name)
    if _is_folder(name):
        return await _path(ws, str(_here(name)))
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return ResolvedModel("hub", f"hub:{name}", "", name, f"hub:{name}")
    if ":" in name:
        return ResolvedModel("ollama", name, "local", name, f"ollama:{name}")
    known = [model.name for model in await models.every(ws.db)]
    raise ModelReferenceError(
        f"no model named {name!r}; registered: {_or_none(known)}. Otherwise say what it is: "
        "hub:OWNER/NAME, path:FOLDER, run:NAME, ollama:TAG, gguf:FILE, api:PROVIDER/MODEL, deployment:NAME"
    )


async def _registered(ws: Workspace, model: Model) -> ResolvedModel:
    base = await _base_of(ws, model) if model.kind == "adapter" else None
    reference = f"run:{model.name}" if model.kind == "adapter" and model.run_id else model.name
    return ResolvedModel(_OF_ROW[model.kind], model.location, model.host, model.name, reference, base)


async def _path(ws: Workspace, path: str) -> ResolvedModel:
    place = str(_here(path)) if path[:1] in ("~", ".") or _is_folder(path) else path
    for model in await models.every(ws.db):
        if model.location == place and model.kind in ("base", "merged", "adapter"):
            return await _registered(ws, model)
    if not _is_file(f"{place}/{_ADAPTER_CONFIG}"):
        return ResolvedModel("folder", place, "", folder_name(place), f"path:{place}")
    return ResolvedModel("adapter", place, "", folder_name(place), f"path:{place}", _base_named_in(place))


async def _run(ws: Workspace, rest: str) -> ResolvedModel:
    name, _, checkpoint = rest.partition("@")
    run = await runs.by_name(ws.db, name)
    if run is None:
        known = [one.name for one in await runs.every(ws.db)]
        raise ModelReferenceError(f"no run named {name}; there are: {_or_none(known)}")
    base = str(run.recipe.get("base_model") or "") or None
    if checkpoint:
        steps = {str(one.step): one.path for one in await runs.checkpoints(ws.db, run.id)}
        if checkpoint not in steps:
            raise ModelReferenceError(
                f"run {name} has no checkpoint {checkpoint}; its steps: {_or_none(list(steps))}"
            )
        return ResolvedModel("adapter", steps[checkpoint], run.host, rest, f"run:{rest}", base)
    if run.state != "done":
        raise ModelReferenceError(
            f"run {name} is {run.state}: it has no finished adapter. Wait for it, resume it, or name a "
            f"checkpoint: run:{name}@STEP"
        )
    return ResolvedModel("adapter", await _final_of(ws, run), run.host, name, f"run:{name}", base)


async def _final_of(ws: Workspace, run: Run) -> str:
    model = await models.by_name(ws.db, run.name)
    return model.location if model is not None and model.run_id == run.id else f"{run.output_dir}/final"


async def _base_of(ws: Workspace, model: Model) -> str | None:
    """Where the base of a registered adapter lies on the adapter's host."""
    base = str(model.details.get("base") or "")
    if base:
        return base
    recipe = await ws.db.fetch_value(
        "SELECT json_extract(recipe, '$.base_model') FROM runs WHERE id = ?", (model.run_id,)
    )
    return str(recipe) if recipe else None


async def _gguf(ws: Workspace, rest: str) -> ResolvedModel:
    model = await models.by_name(ws.db, rest)
    if model is not None and model.kind == "gguf":
        return await _registered(ws, model)
    if not _is_file(rest):
        raise ModelReferenceError(f"gguf:{rest}: neither a registered GGUF nor a file here")
    place = _here(rest)
    return ResolvedModel("gguf", str(place), "local", place.stem, f"gguf:{place}")


def _base_named_in(adapter: str) -> str | None:
    """The base that an adapter's folder names: a folder here, else a name on a hub."""
    try:
        base = json.loads((_here(adapter) / _ADAPTER_CONFIG).read_text("utf-8")).get(
            "base_model_name_or_path"
        )
    except (OSError, ValueError) as error:
        raise ModelReferenceError(f"{adapter}/{_ADAPTER_CONFIG} cannot be read: {error}") from error
    if not base:
        return None
    return str(base) if _is_folder(base) or str(base).count("/") != 1 else f"hub:{base}"


def _here(path: str) -> Path:
    return Path(path).expanduser().absolute()


def _is_folder(path: str) -> bool:
    return _here(path).is_dir()


def _is_file(path: str) -> bool:
    return _here(path).is_file()


def _or_none(names: list[str]) -> str:
    return ", ".join(names) if names else "none yet"
