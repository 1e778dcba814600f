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

from backend.evaluation.benchmarks import Benchmark, BenchmarkError, benchmark_name, read_benchmark
from backend.evaluation.comparing import (
    compare_models,
    comparison_document,
    list_comparisons,
    load_comparison,
)
from backend.evaluation.documents import (
    conditions_of,
    evaluation_document,
    evaluation_row,
    list_evaluations,
    show_evaluation,
)
from backend.evaluation.job_answers import answer_by_job
from backend.evaluation.provider_answers import ask_items
from backend.evaluation.recording import EvaluationFailed, OnProgress, Recorder, Wanted
from backend.execution.pool import open_execution
from backend.execution.tools import find_tools
from backend.registry.references import ResolvedModel, resolve
from backend.settings import Workspace
from backend.settings.load import write_text
from backend.store import deployments, leases
from backend.store import evaluations as rows
from backend.store.evaluations import Evaluation

__all__ = [
    "compare_models",
    "comparison_document",
    "evaluation_document",
    "find_benchmark",
    "list_benchmarks",
    "list_comparisons",
    "list_evaluations",
    "load_comparison",
    "run_evaluation",
    "show_evaluation",
]

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
    async with open_execution(find_tools(ws.settings.tools)) as execution:
        recorder = Recorder(ws, evaluation_id, wanted, execution, on_progress)
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
