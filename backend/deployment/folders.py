"""Option C: a Hugging Face folder that `AutoModelForCausalLM.from_pretrained` loads, with its model card."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path

from backend.deployment.gate import STANDARD, Terms, require_verdict
from backend.deployment.merging import merged_of
from backend.deployment.steps import DeploymentFailed, origin, unsafe_files
from backend.hosts.catalog import open_named_host
from backend.hosts.mirror import OnEvent
from backend.registry.catalog import safe_name
from backend.registry.lineage import lineage
from backend.registry.references import ResolvedModel, resolve, weights_of
from backend.settings import Workspace
from backend.settings.load import write_text
from backend.store import deployments, evaluations
from backend.store.deployments import Deployment


async def deploy_folder(
    ws: Workspace,
    model: str,
    target: Path,
    *,
    name: str | None = None,
    terms: Terms = STANDARD,
    on_event: OnEvent | None = None,
) -> Deployment:
    """Put a model (merged first where it is an adapter) into the folder `target` here, with a model card.

    A version that is there already is kept beside it (`<target>.v<version>`) for `rollback`. Files that run
    code when they are loaded are refused: safetensors only.

    Raises DeploymentRefused by the gate, DeploymentFailed, ModelReferenceError, HostError.
    """
    weights = await weights_of(ws, model)
    if weights.kind == "hub":
        raise DeploymentFailed(f"{model} is on a hub already")
    target = _absolute(target)
    name = name or safe_name(target.name)
    older = await deployments.current(ws.db, name)
    if older is None and await asyncio.to_thread(_holds_files, target):
        raise DeploymentFailed(f"{target} holds files that are no deployment of ours; give another folder")
    verdict = await require_verdict(ws, model, terms)
    whole = weights
    if weights.kind == "adapter":
        merged = await merged_of(ws, weights, weights.host or "local", None, on_event)
        whole = await resolve(ws, merged.name)
    async with ws.db.transaction() as transaction:
        details = json.dumps({"folder": str(target), "gate": verdict})
        number = await deployments.insert(
            transaction, name=name, kind="hf", model=weights.reference, host="local", details=details
        )
    try:
        beside = target.with_name(target.name + ".new")
        await _fetch(ws, whole, beside)
        await asyncio.to_thread(write_text, beside / "README.md", await model_card(ws, weights))
        await asyncio.to_thread(put_in_place, beside, target, older)
    except BaseException as error:
        async with ws.db.transaction() as transaction:
            await deployments.update(transaction, number, "failed", error=str(error) or type(error).__name__)
        raise
    return await published(ws, number, older)


async def published(ws: Workspace, number: int, older: Deployment | None) -> Deployment:
    """The new version answers from now on, the older one is replaced: one transaction."""
    async with ws.db.transaction() as transaction:
        if older is not None and older.state in ("published", "serving"):
            await deployments.update(transaction, older.id, "replaced")
        await deployments.update(transaction, number, "published")
        row = await deployments.by_id(transaction, number)
    if row is None:
        raise LookupError(f"deployment {number} is gone")
    return row


async def _fetch(ws: Workspace, model: ResolvedModel, beside: Path) -> None:
    await asyncio.to_thread(shutil.rmtree, beside, ignore_errors=True)
    async with open_named_host(ws, model.host or "local") as host:
        await host.get(model.location, beside)
    # A job's own records lie beside what it made.
    for name in ("events.jsonl",):
        await asyncio.to_thread((beside / name).unlink, missing_ok=True)
    unsafe = await asyncio.to_thread(unsafe_files, beside)
    if unsafe:
        await asyncio.to_thread(shutil.rmtree, beside)
        raise DeploymentFailed(
            f"{model.location} holds files that run code when they are loaded: {', '.join(unsafe[:5])}. "
            "Save the model as safetensors, and leave programs out."
        )


def put_in_place(beside: Path, target: Path, older: Deployment | None) -> None:
    """Rename the new folder into place; the older version's is kept under its number."""
    if target.exists() and older is not None:
        kept = kept_folder(target, origin(older))
        shutil.rmtree(kept, ignore_errors=True)
        os.replace(target, kept)
    elif target.exists():
        target.rmdir()  # empty, or it was refused before
    os.replace(beside, target)


def kept_folder(target: Path, version: int) -> Path:
    """Where a version's folder lies once another took its place."""
    return target.with_name(f"{target.name}.v{version}")


async def model_card(ws: Workspace, model: ResolvedModel) -> str:
    """README.md with what the model was made of, and what its newest evaluation says."""
    history = await lineage(ws, model.reference)
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "---",
        "",
        f"# {model.name}",
        "",
    ]
    lines += ["Made with hafs-tui. The licence of the base model holds for this one.", "", "## Made of", ""]
    lines += [
        f"- {step.kind}: `{step.name}`{'  ' + step.detail if step.detail else ''}" for step in history.steps
    ]
    evaluation = await evaluations.newest_of(ws.db, model.reference)
    lines += ["", "## Evaluation", ""]
    if evaluation is None:
        lines.append("Not evaluated.")
    else:
        passed = await ws.db.fetch_all(
            "SELECT benchmark, count(score), sum(outcome = 'correct') FROM outcomes WHERE evaluation_id = ? "
            "GROUP BY benchmark ORDER BY benchmark",
            (evaluation.id,),
        )
        lines += [f"- {row[0]}: {row[2]} of {row[1]} items correct" for row in passed]
    return "\n".join(lines) + "\n"


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _holds_files(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
