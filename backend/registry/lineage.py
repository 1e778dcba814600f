"""Where something came from: a model, run or dataset version back to its campaigns, a sample to its request."""

from __future__ import annotations

from dataclasses import dataclass

from backend.registry.references import ModelReferenceError, resolve
from backend.settings import Workspace
from backend.store import models, runs
from backend.store.models import Model


@dataclass(frozen=True, slots=True)
class Step:
    """One thing on the way back. `kind` is a word of the design: model, run, dataset version, campaign, ..."""

    kind: str
    name: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Lineage:
    """From the subject back to its beginnings, nearest first."""

    subject: str
    steps: tuple[Step, ...]


class NoLineage(LookupError):
    """Nothing of that name is known."""


async def lineage(ws: Workspace, identifier: str) -> Lineage:
    """The lineage of a model or a reference to one, a run, a dataset version (NAME@VERSION), a sample
    (`sample:ID`, or its number or uid), or a benchmark item's outcome (`item:EVALUATION/BENCHMARK/ID`).

    Raises NoLineage.
    """
    kind, _, rest = identifier.partition(":")
    if kind == "item" and rest.count("/") >= 2:
        return Lineage(identifier, tuple(await _item(ws, rest)))
    if kind == "sample" or identifier.isdigit():
        return Lineage(identifier, tuple(await _sample(ws, rest or identifier)))
    steps = await _model(ws, identifier)
    if not steps and kind != "run" and "@" in identifier:
        steps = await _dataset(ws, "name || '@' || version = ?", identifier.replace("@v", "@"))
    if not steps:
        steps = await _dataset(ws, "name = ?", identifier)
    if not steps:
        steps = await _sample(ws, identifier)
    return Lineage(identifier, tuple(steps))


async def _model(ws: Workspace, identifier: str) -> list[Step]:
    """A model, its parents, and the run and dataset of each; empty where there is no such model."""
    steps: list[Step] = []
    seen: set[str] = set()
    name: str | None = _without_checkpoint(identifier)
    while name and name not in seen:
        seen.add(name)
        model = await models.by_name(ws.db, name)
        if model is not None:
            steps.append(Step(f"model ({model.kind})", model.name, f"{model.location} on {model.host}"))
        run_name = await _run_of(ws, model, name)
        parent = model.parent if model else None
        if run_name is not None:
            steps += await _run(ws, run_name)
            run = await runs.by_name(ws.db, run_name)
            parent = (run.parent or run.base_model) if run else parent
        if model is None and run_name is None:
            if steps or await _resolves(ws, name):
                steps.append(Step("model", name))
            break
        name = _without_checkpoint(parent) if parent else None
    return steps


def _without_checkpoint(reference: str) -> str:
    """`run:NAME@STEP` and `run:NAME` are the run NAME; anything else is itself."""
    return reference[4:].partition("@")[0] if reference.startswith("run:") else reference


async def _run_of(ws: Workspace, model: Model | None, name: str) -> str | None:
    if model is not None and model.run_id is not None:
        return str(await ws.db.fetch_value("SELECT name FROM runs WHERE id = ?", (model.run_id,)))
    run = await runs.by_name(ws.db, name)
    return run.name if run else None


async def _resolves(ws: Workspace, reference: str) -> bool:
    try:
        await resolve(ws, reference)
    except ModelReferenceError:
        return False
    return True


async def _run(ws: Workspace, name: str) -> list[Step]:
    run = await runs.by_name(ws.db, name)
    if run is None:
        return []
    loss = "" if run.loss is None else f", loss {run.loss:.4g}"
    steps = [Step(f"run ({run.kind})", run.name, f"{run.state} on {run.host}, step {run.step}{loss}")]
    if run.dataset_id is not None:
        steps += await _dataset(ws, "id = ?", run.dataset_id)
    return steps


async def _dataset(ws: Workspace, where: str, value: str | int) -> list[Step]:
    """The newest dataset version that fits, and its campaigns with how many rows each gave."""
    row = await ws.db.fetch_one(
        f"SELECT * FROM dataset_versions WHERE {where} ORDER BY id DESC LIMIT 1", (value,)  # noqa: S608
    )  # fmt: skip
    if row is None:
        return []
    counts = f"{row['train']} train, {row['val']} val, {row['test']} test, {row['content_hash'][:12]}"
    steps = [Step("dataset version", f"{row['name']}@{row['version']}", counts)]
    for campaign in await ws.db.fetch_all(
        "SELECT coalesce(c.name, s.source) AS name, count(*) AS samples, c.provider, c.model "
        "FROM dataset_rows AS d JOIN samples AS s ON s.id = d.sample_id "
        "LEFT JOIN campaigns AS c ON c.id = s.campaign_id WHERE d.dataset_id = ? GROUP BY 1 ORDER BY 2 DESC",
        (row["id"],),
    ):
        source = f", {campaign['provider']} {campaign['model']}" if campaign["provider"] else ""
        steps.append(
            Step(
                "campaign" if source else "source", campaign["name"], f"{campaign['samples']} samples{source}"
            )
        )
    return steps


async def _sample(ws: Workspace, identifier: str) -> list[Step]:
    row = await ws.db.fetch_one(
        "SELECT s.id, s.uid, s.state, s.domain, s.source, c.name AS campaign, r.id AS request, r.provider, r.model, "
        "r.cost_usd FROM samples AS s LEFT JOIN campaigns AS c ON c.id = s.campaign_id "
        "LEFT JOIN requests AS r ON r.id = s.request_id WHERE s.id = ? OR s.uid = ?",
        (int(identifier) if identifier.isdigit() else -1, identifier),
    )
    if row is None:
        raise NoLineage(
            f"nothing is known by the name {identifier!r}: no model, run, dataset version or sample"
        )
    steps = [Step("sample", row["uid"], f"{row['state']}, domain {row['domain']}, from {row['source']}")]
    if row["campaign"]:
        steps.append(Step("campaign", row["campaign"]))
    if row["request"]:
        cost = "" if row["cost_usd"] is None else f", ${row['cost_usd']:.4f}"
        steps.append(Step("request", str(row["request"]), f"{row['provider']} {row['model']}{cost}"))
    for dataset in await ws.db.fetch_all(
        "SELECT v.name, v.version, d.split FROM dataset_rows AS d JOIN dataset_versions AS v ON v.id = d.dataset_id "
        "WHERE d.sample_id = ? ORDER BY v.id",
        (row["id"],),
    ):
        name = f"{dataset['name']}@{dataset['version']}"
        steps.append(Step("dataset version", name, f"in its {dataset['split']} split"))
    return steps


async def _item(ws: Workspace, rest: str) -> list[Step]:
    evaluation, benchmark, item = rest.split("/", 2)
    row = await ws.db.fetch_one(
        "SELECT o.outcome, o.detail, e.model FROM outcomes AS o JOIN evaluations AS e ON e.id = o.evaluation_id "
        "WHERE o.evaluation_id = ? AND o.benchmark = ? AND o.item_id = ?",
        (int(evaluation) if evaluation.isdigit() else -1, benchmark, item),
    )
    if row is None:
        raise NoLineage(f"no outcome {rest}: expected item:EVALUATION/BENCHMARK/ID")
    steps = [Step("benchmark item", f"{benchmark}/{item}", f"{row['outcome']}: {row['detail']}")]
    return steps + await _model(ws, row["model"])
