"""A workspace with something in every table that a screen shows, with fixed texts and times."""

from __future__ import annotations

import json
from collections.abc import Sequence

from backend.settings import Workspace
from backend.store import (
    campaigns,
    deployments,
    evaluations,
    jobs,
    models,
    pairs,
    requests,
    runs,
    samples,
)
from backend.store.samples import GateRow

ASM = """; clear the OAM buffer
ClearOAM:
    rep #$20
    lda.w #$F0F0
    ldx #$01FE
-   sta.l $7E0300,x
    dex
    dex
    bpl -
    sep #$20
    rts
"""


async def put_samples(ws: Workspace, texts: Sequence[str], campaign_id: int | None = None) -> list[int]:
    """Pending samples whose instruction, input and output are each text."""
    ids = []
    async with ws.db.transaction() as transaction:
        for number, text in enumerate(texts):
            sample_id = await samples.insert(
                transaction,
                uid=f"uid-{number}-{campaign_id}",
                domain="asm" if number % 2 else "opcodes",
                family=f"family-{number}",
                source="generated",
                state="pending",
                instruction=text,
                input="",
                output=text,
                exact_hash=f"{number}-{campaign_id}",
                author="model",
                campaign_id=campaign_id,
                score=round(0.5 + number % 50 / 100, 2),
                provider="openai",
                model="gpt-test",
            )
            await samples.insert_gates(
                transaction,
                sample_id,
                [GateRow("schema", True, None, "ok"), GateRow("length", True, 120.0, "within 1 to 32000")],
            )
            ids.append(sample_id)
    return ids


async def put_world(ws: Workspace, text: str = "Clear the OAM buffer with 16-bit stores.") -> None:
    """Two campaigns, samples, failures, a run with curves, evaluations, pairs and a deployment.

    `text` stands wherever a model, a host or a user could have put one.
    """
    async with ws.db.transaction() as t:
        first = await _campaign(t, f"snes-asm {text}"[:60], {"asm": 40, "opcodes": 20}, text)
        await campaigns.set_state(t, first, "running")
        for _ in range(17):
            await campaigns.count(t, first, "asm", accepted=True)
        await campaigns.count(t, first, "opcodes", accepted=False)
        second = await _campaign(t, "explain", {"opcodes": 10}, text)
        await campaigns.set_state(t, second, "failed", f"the key was refused: {text}")
        request = await requests.insert_sent(
            t, purpose="generate", content_key="key", provider="openai", model=text, prompt=text,
            campaign_id=first, domain="asm", ordinal=0,
        )  # fmt: skip
        await requests.record_failure(t, request, "server", f"503: {text}")
    await put_samples(ws, [f"{text} ({n})" for n in range(1, 30)] + [ASM], first)
    async with ws.db.transaction() as t:
        await jobs.insert(t, "job-1", "local", "sft", json.dumps(["python", text]), "{}")
        await jobs.update(t, "job-1", "running", started_at=1.0, log_path=text)
        for step in range(1, 60):
            loss = 4 / step**0.5 if step != 30 else None
            await jobs.put_metrics(t, "job-1", step, [("loss", loss), ("eval_loss", 4.2 / step**0.5)])
        await runs.insert(
            t, name=f"sft-1 {text}"[:60], kind="sft", job_id="job-1", host="local", base_model=f"hub:{text}",
            parent=None, dataset_id=None, recipe="{}", output_dir=text,
        )  # fmt: skip
        await runs.progress(t, "job-1", 59, 120, 0.52, 0.55)
        await runs.put_checkpoint(t, "job-1", 50, text, 1.0)
        base = await evaluations.insert(t, f"base {text}", json.dumps([f"opcodes {text}"]), None)
        tuned = await evaluations.insert(t, f"tuned {text}", json.dumps([f"opcodes {text}"]), None)
        for each, passed in ((base, 3), (tuned, 7)):
            outcomes = [
                evaluations.OutcomeRow(
                    f"opcodes {text}", f"item-{n}", "f", "c", "passed" if n < passed else "failed",
                    1.0 if n < passed else 0.0, text, text, text, text,
                )
                for n in range(10)
            ]  # fmt: skip
            await evaluations.put_outcomes(t, each, outcomes)
            await evaluations.finish(t, each, "done")
        await evaluations.insert_comparison(
            t, baseline=base, finetuned=tuned, verdict="better", items_needed=None, difference=0.4, low=0.1,
            high=0.7, p_value=0.03, report=text,
        )  # fmt: skip
        await models.put(
            t, name=f"sft-1 {text}"[:60], kind="adapter", location=text, host="local", parent=text
        )
        deployed = await deployments.insert(
            t, name=f"helper {text}"[:60], kind="gguf", model=text, host="local", details="{}"
        )
        await deployments.update(t, deployed, "serving", endpoint=text)
        await deployments.insert_exchange(t, deployed, text, text, None)
        await pairs.insert(
            t, uid="pair-1", batch=f"batch {text}", prompt=text, chosen=f"{text} chosen", rejected=f"{text} worse",
            margin=0.3, scorer="llm", source=text,
        )  # fmt: skip


async def _campaign(t: object, name: str, targets: dict[str, int], text: str) -> int:
    return await campaigns.insert(
        t, name=name, provider="openai", model=f"model {text}", base_url=text, targets=targets, temperature=0.7,  # type: ignore[arg-type]
        max_tokens=None, seed=1, parallel=2, budget_usd=None, budget_requests=None,
    )  # fmt: skip
