"""Runs evaluations: a model's answers to benchmark items, each scored and stored when it is there.

Weights are evaluated by a worker on a host, everything else is asked through its provider and the ledger. An
evaluation that was interrupted, by a kill or by a failure, goes on where its rows say when it is run again.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from backend.evaluation.benchmarks import Benchmark, BenchmarkError, Outcome, benchmark_name, read_benchmark
from backend.evaluation.comparison import EvaluationSummary, ItemOutcome, evaluation_record, summarise
from backend.evaluation.job_answers import answer_by_job
from backend.evaluation.metrics import Perplexity
from backend.evaluation.provider_answers import ask_items
from backend.evaluation.recording import EvaluationFailed, OnProgress, Recorder, Wanted
from backend.registry.references import ResolvedModel, resolve
from backend.settings import Workspace
from backend.settings.load import write_text
from backend.store import deployments, jobs, leases
from backend.store import evaluations as rows
from backend.store.evaluations import Evaluation, OutcomeRow

NO_LOGPROBS = "asked through a server, which gives no log-probabilities of a text that it did not write"


async def run_evaluation(
    ws: Workspace,
    model: str,
    benchmarks: Sequence[str],
    *,
    heldout: Path | str | None = None,
    host: str = "local",
    output: Path | None = None,
    on_progress: OnProgress | None = None,
    max_new_tokens: int = 64,
    batch_size: int = 8,
) -> Evaluation:
    """Evaluate a model on benchmarks (names or files) and, for weights, its perplexity on held-out rows.

    The newest unfinished evaluation of the same is taken up where there is one. `host` is where weights are
    loaded. The JSON of the command line is written to `output`, or into the workspace's evaluations.

    Raises EvaluationFailed, BenchmarkError, ModelReferenceError, SettingsError, HostError, ProviderError,
    LeaseHeldError. What was answered before is kept, and the row says why it failed.
    """
    resolved = await _loadable(ws, await resolve(ws, model))
    files = [find_benchmark(ws, name) for name in benchmarks]
    loaded = [await asyncio.to_thread(read_benchmark, file) for file in files]
    rows_file = _heldout_file(heldout)
    if not loaded and rows_file is None:
        raise EvaluationFailed("nothing to evaluate: name benchmarks, or give held-out rows for perplexity")
    wanted = Wanted(resolved, tuple(loaded), rows_file, host, max_new_tokens, batch_size)
    names = json.dumps([one.name for one in loaded])
    evaluation_id = await _unfinished(ws, resolved.reference, names, max_new_tokens)
    if evaluation_id is None:
        async with ws.db.transaction() as transaction:
            evaluation_id = await rows.insert(transaction, resolved.reference, names, None)
    async with leases.hold(ws.db, f"evaluation:{evaluation_id}"):
        try:
            await _answer(ws, evaluation_id, wanted, on_progress)
        except Exception as error:
            async with ws.db.transaction() as transaction:
                await rows.finish(transaction, evaluation_id, "failed", error=str(error))
            raise
        return await _publish(ws, evaluation_id, output)


async def _answer(ws: Workspace, evaluation_id: int, wanted: Wanted, on_progress: OnProgress | None) -> None:
    """Every item answered and the evaluation's row done, or an exception."""
    recorder = Recorder(ws, evaluation_id, wanted, on_progress)
    await recorder.load()
    if wanted.model.is_weights:
        perplexity = await answer_by_job(ws, recorder, wanted)
    else:
        await ask_items(ws, recorder, wanted)
        perplexity = {"reason": NO_LOGPROBS} if wanted.heldout else {}
    if len(recorder.missing):
        raise EvaluationFailed(
            f"{len(recorder.missing)} items have no answer although the work ended; run it again to go on"
        )
    async with ws.db.transaction() as transaction:
        await rows.finish(
            transaction,
            evaluation_id,
            "done",
            perplexity=json.dumps(perplexity),
            notes=json.dumps(list(_notes(wanted.benchmarks))),
        )


def _notes(benchmarks: Sequence[Benchmark]) -> Sequence[str]:
    """What a reader of the report must know about the benchmarks' files."""
    notes = []
    for benchmark in benchmarks:
        if benchmark.by_text_only:
            notes.append(f"{benchmark.name} is scored by text: nothing of it is executed")
        if benchmark.problems:
            first = benchmark.problems[0]
            notes.append(
                f"{benchmark.name}: {len(benchmark.problems)} lines are no items "
                f"(line {first.line}: {first.reason})"
            )
    return notes


async def _publish(ws: Workspace, evaluation_id: int, output: Path | None) -> Evaluation:
    """The evaluation's JSON file, written from its rows, and its path in the row."""
    stamp = time.strftime("%Y%m%d_%H%M%S")
    target = output or ws.evaluations / f"{stamp}_{evaluation_id}" / "evaluation.json"
    document = json.dumps(await evaluation_document(ws, evaluation_id), indent=2, ensure_ascii=False)
    await asyncio.to_thread(write_text, target, document + "\n")
    async with ws.db.transaction() as transaction:
        await transaction.execute(
            "UPDATE evaluations SET output = ? WHERE id = ?", (str(target.absolute()), evaluation_id)
        )
    return await evaluation_row(ws, evaluation_id)


async def evaluation_document(ws: Workspace, evaluation_id: int) -> dict[str, Any]:
    """An evaluation as the command line's JSON: its numbers, and `items` with each outcome and answer."""
    summary, items = await summary_of(ws, await evaluation_row(ws, evaluation_id))
    return {
        **evaluation_record(summary),
        "items": [
            {"benchmark": item.benchmark, "id": item.id, "outcome": item.outcome, "score": item.score,
             "detail": item.detail, "answer": item.answer}
            for item in items
        ],
    }  # fmt: skip


async def summary_of(ws: Workspace, evaluation: Evaluation) -> tuple[EvaluationSummary, list[ItemOutcome]]:
    """An evaluation in numbers, and its items."""
    items = [_item(row) for row in await rows.outcomes(ws.db, evaluation.id)]
    conditions = await conditions_of(ws, evaluation)
    summary = await asyncio.to_thread(
        summarise,
        evaluation.model,
        items,
        perplexity=Perplexity.from_record(evaluation.perplexity),
        conditions=conditions,
        notes=evaluation.notes,
        id=evaluation.id,
    )
    return summary, items


async def conditions_of(ws: Workspace, evaluation: Evaluation) -> dict[str, str]:
    """What two evaluations must share to be compared fairly, by name, as far as the rows tell."""
    job = await jobs.by_id(ws.db, evaluation.job_id) if evaluation.job_id else None
    if job is not None:
        limit = str(job.spec["parameters"]["max_new_tokens"])
        return {"engine": "transformers", "max_tokens": limit, "temperature": "0"}
    asked = await ws.db.fetch_one(
        "SELECT provider, json_extract(prompt, '$.max_tokens') FROM requests "
        "WHERE purpose = 'evaluate' AND content_key >= ? AND content_key < ? LIMIT 1",
        (f"evaluation:{evaluation.id}:", f"evaluation:{evaluation.id};"),
    )
    if asked is None:
        return {}
    return {"engine": str(asked[0]), "max_tokens": str(asked[1]), "temperature": "0"}


async def list_evaluations(ws: Workspace) -> list[Evaluation]:
    """Newest first."""
    return await rows.every(ws.db)


async def show_evaluation(ws: Workspace, evaluation_id: int) -> tuple[Evaluation, list[OutcomeRow]]:
    """Raises EvaluationFailed for an unknown id."""
    return await evaluation_row(ws, evaluation_id), await rows.outcomes(ws.db, evaluation_id)


async def evaluation_row(ws: Workspace, evaluation_id: int) -> Evaluation:
    """Raises EvaluationFailed for an unknown id."""
    row = await rows.by_id(ws.db, evaluation_id)
    if row is None:
        raise EvaluationFailed(f"no evaluation {evaluation_id}; hafs-tui eval list shows those there are")
    return row


def list_benchmarks(ws: Workspace) -> dict[str, Path]:
    """Every benchmark's file by name; the workspace's own lie over the packaged ones."""
    packaged = Path(str(resources.files("config") / "benchmarks"))
    files = [file for folder in (packaged, ws.benchmarks) for file in sorted(folder.glob("*.jsonl"))]
    return {benchmark_name(file): file for file in files}


def find_benchmark(ws: Workspace, name: str) -> Path:
    """The file of a benchmark, by its name or its path. Raises BenchmarkError that names those there are."""
    known = list_benchmarks(ws)
    if name in known:
        return known[name]
    path = Path(name).expanduser().absolute()
    if path.is_file():
        return path
    raise BenchmarkError(
        f"no benchmark {name!r}: there are {', '.join(known) or 'none'}; or give a file of items. "
        f"Own ones are put into {ws.benchmarks} as NAME_benchmark.jsonl"
    )


async def _loadable(ws: Workspace, model: ResolvedModel) -> ResolvedModel:
    """A deployed folder is evaluated as the weights that it is."""
    if model.kind == "deployment":
        row = await deployments.current(ws.db, model.location)
        if row is not None and row.kind == "hf":
            return ResolvedModel("folder", str(row.details["folder"]), row.host, model.name, model.reference)
    return model


def _heldout_file(heldout: Path | str | None) -> Path | None:
    """A file of rows; of a dataset's folder its val.jsonl, which no training step saw."""
    if not heldout:
        return None
    path = Path(heldout).expanduser().absolute()
    file = path / "val.jsonl" if path.is_dir() else path
    if not file.is_file():
        raise EvaluationFailed(f"held-out rows: {file} is not a file")
    return file


async def _unfinished(ws: Workspace, model: str, benchmarks: str, max_new_tokens: int) -> int | None:
    """The newest evaluation of the same that did not finish and that nobody works on; it is running again."""
    for evaluation in await rows.every(ws.db):
        if evaluation.model != model or json.dumps(evaluation.benchmarks) != benchmarks:
            continue
        limit = (await conditions_of(ws, evaluation)).get("max_tokens", str(max_new_tokens))
        if evaluation.state == "done" or limit != str(max_new_tokens):
            return None
        if await leases.holder(ws.db, f"evaluation:{evaluation.id}") is not None:
            return None
        async with ws.db.transaction() as transaction:
            await transaction.execute(
                "UPDATE evaluations SET state = 'running', error = NULL, ended_at = NULL WHERE id = ?",
                (evaluation.id,),
            )
        return evaluation.id
    return None


def _item(row: OutcomeRow) -> ItemOutcome:
    outcome: Outcome = row.outcome  # type: ignore[assignment]
    return ItemOutcome(
        benchmark=row.benchmark,
        id=row.item_id,
        family=row.family,
        category=row.category,
        outcome=outcome,
        score=row.score,
        answer=row.answer,
        detail=row.detail,
        prompt=row.prompt,
        reference=row.reference,
    )
