"""Rows for the screens of the later stages, with fixed texts and times: what a week of work leaves behind."""

from __future__ import annotations

import json
import math

from backend.settings import Workspace
from backend.store import Transaction, datasets, deployments, evaluations, jobs, models, pairs, runs
from backend.store.evaluations import OutcomeRow

AT = 1_764_000_000.0
RECIPE = {
    "base_model": "/hosts/smollm2",
    "dataset": "/hosts/datasets/pilot",
    "lora_r": 16,
    "learning_rate": 2e-4,
}
FAILURE = (
    "out_of_memory: the GPU has 16.0 GiB and the step wanted 17.2 GiB\n"
    "Lower batch_size to 1, or set load_in_4bit.\n\nthe last 1 lines of stdout.log:\nCUDA out of memory"
)


async def put_training(ws: Workspace) -> None:
    """A dataset version, a finished SFT run with curves, a DPO run with margins, and one that failed."""
    async with ws.db.transaction() as t:
        dataset = await datasets.insert(
            t, name="pilot", version=2, path="/work/datasets/pilot_20251124_160000", content_hash="ab" * 32, seed=42,
            filters="{}", counts={"train": 412, "val": 52, "test": 51}, members=(),
        )  # fmt: skip
        await _run(t, "pilot-sft", "sft", "done", dataset, steps=120)
        await _run(t, "pilot-dpo", "dpo", "running", None, steps=60)
        await _run(t, "big-sft", "sft", "failed", dataset, steps=2, host="box")
        await jobs.update(t, "job-big-sft", "failed", exit_code=1, error=FAILURE)
        await t.execute("UPDATE runs SET created_at = ?", (AT,))
        await t.execute("UPDATE jobs SET created_at = ?, started_at = NULL, seen_at = ?", (AT, AT))


async def _run(
    t: Transaction, name: str, kind: runs.RunKind, state: jobs.JobState, dataset: int | None, *, steps: int,
    host: str = "local",
) -> None:  # fmt: skip
    job, output = f"job-{name}", f"/hosts/runs/{name}"
    recipe = {**RECIPE, "output_dir": output}
    await jobs.insert(
        t,
        job,
        host,
        kind,
        json.dumps(["python", "-m", kind]),
        json.dumps({"kind": kind, "parameters": recipe}),
    )
    await jobs.update(t, job, state, log_path=f"/hosts/jobs/{job}/stdout.log")
    await runs.insert(
        t, name=name, kind=kind, job_id=job, host=host, base_model="hub:HuggingFaceTB/SmolLM2-135M-Instruct",
        parent="run:pilot-sft" if kind == "dpo" else None, dataset_id=dataset, recipe=json.dumps(recipe),
        output_dir=output,
    )  # fmt: skip
    for step in range(1, steps + 1):
        figures: list[tuple[str, float | None]] = [
            ("loss", 2.4 * math.exp(-step / 40) + 0.2 + 0.05 * math.sin(step)),
            ("learning_rate", 2e-4 * (1 - step / 130)),
            ("grad_norm", 1 + math.sin(step / 5) / 3),
        ]
        if step % 10 == 0:
            figures.append(("eval_loss", 2.4 * math.exp(-step / 45) + 0.3))
        if kind == "dpo":
            figures.append(("rewards_margin", step / 100))
        await jobs.put_metrics(t, job, step, figures)
    await runs.progress(t, job, steps, 120, 0.31, 0.42)
    if state == "done":
        await runs.put_checkpoint(t, job, 100, f"{output}/checkpoints/100", AT)
        await runs.put_checkpoint(t, job, 120, f"{output}/checkpoints/120", AT)
    started = {"kind": kind, "model": "smollm2", "device": "cpu", "trainable_parameters": 4_884_480}
    warned = {
        "code": "truncated",
        "message": "3 rows are longer than max_length.",
        "remedy": "Raise max_length.",
    }
    await jobs.append_events(
        t, job, 900, [(1, "started", AT, json.dumps(started)), (2, "warning", AT, json.dumps(warned))]
    )


ITEMS = (
    ("load-12", "Load A from address $12.", "lda $12"),
    ("store-34", "Store A to address $34.", "sta $34"),
    ("clear-x", "Set X to zero with one instruction.", "ldx #$00"),
    ("wait", "Wait for an interrupt.", "wai"),
)


async def put_evaluations(ws: Workspace) -> None:
    """The base and the tuned model on a benchmark, a failed evaluation, and a comparison with its report."""
    report = ws.evaluations / "comparisons" / "1-2.md"
    report.parent.mkdir(parents=True)
    report.write_text(
        "# Better: run:pilot-sft against smollm2\n\n**better: +50.0 points**\n\n[bold]not bold[/bold]\n"
    )
    async with ws.db.transaction() as t:
        for model, right in (("smollm2", 1), ("run:pilot-sft", 3)):
            number = await evaluations.insert(t, model, json.dumps(["opcodes"]), None)
            await evaluations.put_outcomes(t, number, [_outcome(n, n < right) for n in range(len(ITEMS))])
            perplexity = json.dumps({"word_rolling": 41.5 / right, "byte_rolling": 1.9, "word_stride": None})
            await evaluations.finish(t, number, "done", perplexity=perplexity)
        broken = await evaluations.insert(t, "run:big-sft", json.dumps(["opcodes"]), None)
        await evaluations.finish(
            t, broken, "failed", error="box: connect: no route to host\nIs it switched on?"
        )
        await evaluations.insert_comparison(
            t, baseline=1, finetuned=2, verdict="cannot_tell", items_needed=31, difference=0.5, low=-0.1, high=0.9,
            p_value=0.25, report=str(report),
        )  # fmt: skip


def _outcome(n: int, right: bool) -> OutcomeRow:
    key, prompt, reference = ITEMS[n]
    return OutcomeRow(
        "opcodes", key, "load", "asm", "correct" if right else "wrong", float(right),
        reference if right else "I think that you could use [LDA].", reference, prompt, "" if right else "not equal",
    )  # fmt: skip


async def put_pairs(ws: Workspace, count: int = 3) -> list[int]:
    """Pending pairs whose chosen answer is code and whose rejected one is talk."""
    async with ws.db.transaction() as t:
        return [
            await pairs.insert(
                t, uid=f"pair-{n}", batch="pilot", prompt=f"Load A from address ${n:02X}.",
                chosen=f"lda ${n:02X}", rejected=f"You may want to load ${n:02X} [somehow].\nIt depends.",
                margin=0.25 * n, scorer="reference", source="run:pilot-sft",
            )
            for n in range(1, count + 1)
        ]  # fmt: skip


async def put_models(ws: Workspace) -> None:
    """A line of models from base to GGUF, and two versions of a deployment."""
    async with ws.db.transaction() as t:
        line = (
            ("smollm2", "base", None),
            ("pilot-sft", "adapter", "smollm2"),
            ("pilot-sft-merged", "merged", "pilot-sft"),
            ("pilot-sft-gguf", "gguf", "pilot-sft-merged"),
        )
        for name, kind, parent in line:
            await models.put(
                t, name=name, kind=kind, location=f"/hosts/models/{name}", host="local", parent=parent,  # type: ignore[arg-type]
                size_bytes=270_000_000,
            )  # fmt: skip
        first = await deployments.insert(
            t,
            name="helper",
            kind="hf",
            model="pilot-sft-merged",
            host="local",
            details='{"folder": "/out/helper"}',
        )
        await deployments.update(t, first, "replaced")
        second = await deployments.insert(
            t,
            name="helper",
            kind="hf",
            model="pilot-sft-merged",
            host="local",
            details='{"folder": "/out/helper2"}',
        )
        await deployments.update(t, second, "published")
        await t.execute("UPDATE deployments SET created_at = ?", (AT,))
        await t.execute("UPDATE models SET created_at = ?", (AT,))


async def put_jobs(ws: Workspace) -> None:
    """Jobs of the host `local` in several states."""
    async with ws.db.transaction() as t:
        for name, state, code in (("sft-1", "done", 0), ("eval-2", "failed", 1), ("dpo-3", "running", None)):
            await jobs.insert(t, name, "local", name[:-2], json.dumps(["python", "-V"]), "{}")
            await jobs.update(t, name, state, exit_code=code, started_at=AT, log_path="/hosts/jobs/log")  # type: ignore[arg-type]
        await t.execute(
            "UPDATE jobs SET created_at = ?, ended_at = ? WHERE state IN ('done', 'failed')", (AT, AT + 90)
        )
        await t.execute("UPDATE jobs SET created_at = ? WHERE state = 'running'", (AT + 60,))
