"""Answers of weights: an `evaluate` job on a host, its events scored and stored while it runs."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from backend.contract.job import EvaluateParameters, JobSpec
from backend.evaluation.recording import EvaluationFailed, Given, Recorder, Wanted
from backend.hosts.catalog import open_named_host
from backend.hosts.launching import launch_worker, new_job_id
from backend.hosts.mirror import wait_for
from backend.hosts.placing import place_file, place_model
from backend.settings import Workspace
from backend.store import Transaction, jobs
from backend.store import evaluations as rows
from backend.store.jobs import Job
from backend.training.runs import ready
from remote import Host

_LOOK_S = 0.3


async def answer_by_job(ws: Workspace, recorder: Recorder, wanted: Wanted) -> dict[str, Any]:
    """Have the missing items answered on the host, and perplexity measured; its figures, {} without rows for it.

    A job of this evaluation that still runs, or ran on while nobody looked, is taken up first.
    Raises EvaluationFailed with the job's last words, ModelReferenceError, SettingsError, HostError.
    """
    evaluation = await rows.by_id(ws.db, recorder.evaluation_id)
    perplexity = dict(evaluation.perplexity) if evaluation else {}
    if evaluation is not None and evaluation.job_id is not None:
        job = await _gather(ws, recorder, evaluation.job_id)
        # Its perplexity counts only for the rows that are wanted now.
        if wanted.heldout is not None and f"/{await _digest(wanted.heldout)}/" in _heldout_of(job):
            perplexity = perplexity or await _perplexity(ws, evaluation.job_id)
    if not recorder.missing and (wanted.heldout is None or perplexity):
        return perplexity
    async with open_named_host(ws, wanted.host) as host:
        job = await _launch(ws, host, recorder, wanted, with_heldout=not perplexity)
    job = await _gather(ws, recorder, job.id)
    if job.state != "done":
        raise EvaluationFailed(
            f"the evaluation of {wanted.model.reference} on {wanted.host} is {job.state} ({job.id}).\n"
            f"{job.error or ''}\nWhat was answered is kept; run the same evaluation again to go on."
        )
    return perplexity or await _perplexity(ws, job.id)


async def _launch(
    ws: Workspace, host: Host, recorder: Recorder, wanted: Wanted, *, with_heldout: bool
) -> Job:
    probe = await ready(host)
    model = await place_model(ws, host, probe, wanted.model)
    heldout = ""
    if wanted.heldout is not None and with_heldout:
        folder = f"benchmarks/{await _digest(wanted.heldout)}"
        heldout = await place_file(host, wanted.heldout, folder, wanted.heldout.name)
    job_id = new_job_id("evaluate")
    parameters = EvaluateParameters(
        model=model.location,
        base_model=model.base,
        output_dir=f"{probe.root}/evaluations/{job_id}",
        heldout=heldout,
        items=await _place_items(host, recorder),
        batch_size=wanted.batch_size,
        max_new_tokens=wanted.max_new_tokens,
    )

    async def point(transaction: Transaction, job_id: str) -> None:
        await transaction.execute(
            "UPDATE evaluations SET job_id = ? WHERE id = ?", (job_id, recorder.evaluation_id)
        )

    return await launch_worker(ws, host, JobSpec("evaluate", parameters), job_id=job_id, with_row=point)


async def _digest(file: Path) -> str:
    """What a file of held-out rows is known by on a host: 12 hex digits of its content."""
    return hashlib.sha256(await asyncio.to_thread(file.read_bytes)).hexdigest()[:12]


def _heldout_of(job: Job) -> str:
    """Where the held-out rows of a job lay on its host; empty where it had none."""
    return str(job.spec.get("parameters", {}).get("heldout", "")).replace("\\", "/")


async def _place_items(host: Host, recorder: Recorder) -> tuple[str, ...]:
    """The missing items as files that the worker reads, one a benchmark and named by it; their paths there."""
    lines: dict[str, list[str]] = {}
    for benchmark, item in recorder.missing:
        record = {
            "id": item.id,
            "instruction": item.instruction,
            "input": item.input,
            "output": item.output,
            "family": item.family,
            "category": item.category,
        }
        lines.setdefault(benchmark, []).append(json.dumps(record, ensure_ascii=False) + "\n")
    places = []
    with tempfile.TemporaryDirectory() as folder:
        for benchmark, of_it in lines.items():
            text = "".join(of_it)
            file = Path(folder) / f"{benchmark}.jsonl"
            await asyncio.to_thread(file.write_text, text, "utf-8")
            digest = hashlib.sha256(text.encode()).hexdigest()[:12]
            places.append(await place_file(host, file, f"benchmarks/{digest}", file.name))
    return tuple(places)


async def _gather(ws: Workspace, recorder: Recorder, job_id: str) -> Job:
    """Score and store the job's items as their events come in, until it has ended; the job then."""
    waiting = asyncio.create_task(wait_for(ws, job_id), name=f"wait for {job_id}")
    seen = 0
    try:
        while True:
            ended = waiting.done()
            items = await jobs.events(ws.db, job_id, kind="item", after=seen)
            await recorder.record([_given(event.payload) for event in items])
            seen = items[-1].seq if items else seen
            if ended:
                return await waiting
            await asyncio.wait([waiting], timeout=_LOOK_S)
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


def _given(payload: dict[str, Any]) -> Given:
    note = "cut at the token limit" if payload.get("finish") == "length" else ""
    return Given(str(payload["benchmark"]), str(payload["id"]), str(payload["answer"]), note)


async def _perplexity(ws: Workspace, job_id: str) -> dict[str, Any]:
    """What the job measured on held-out rows; {} where it did not come so far."""
    told = await jobs.events(ws.db, job_id, kind="perplexity")
    return dict(told[-1].payload) if told else {}
