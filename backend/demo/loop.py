"""The loop, stage by stage: generate, review, fine-tune, evaluate, prefer, fine-tune again, deploy.

Nothing here is special to the demo but its sizes: each stage calls what the screens and commands call.
The demo's domain has computed references, so its gate is a teacher that the small model itself is not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from backend.contract import events
from backend.datasets.building import build
from backend.datasets.catalog import find
from backend.deployment.chat import chat
from backend.deployment.folders import deploy_folder
from backend.deployment.gate import Terms
from backend.deployment.gguf import convert_to_gguf
from backend.deployment.serving import serve_gguf
from backend.evaluation.report import verdict_words
from backend.evaluation.running import compare_models, evaluation_document, run_evaluation
from backend.generation.campaigns import NewCampaign, create
from backend.generation.engine import run_campaign
from backend.generation.progress import progress_of
from backend.hosts.mirror import wait_for
from backend.preferences.exporting import export as export_pairs
from backend.preferences.reviewing import accept_by_policy
from backend.preferences.running import generate_pairs
from backend.providers.embedded import BUNDLED_MODEL, EmbeddedServer, bundled_gguf
from backend.review.bulk import approve_by_policy
from backend.settings import Workspace
from backend.store.runs import Run
from backend.store.samples import Filter
from backend.training.bases import BUNDLED_BASE, prepare_base
from backend.training.recipes import recipe_values
from backend.training.runs import run_metrics, show_run, start_dpo, start_sft

DOMAIN = BENCHMARK = "opcodes"
SFT, DPO, DATASET, DEPLOYMENT = "demo-sft", "demo-dpo", "demo", "demo-coder"
# Hot enough that the fine-tuned model's answers differ: pairs come from prompts where some are wrong.
TEMPERATURES = (1.0, 1.2)
CAMPAIGNS = (("demo-steady", "embedded", 0.2), ("demo-lively", "openai", 0.8))


class DemoFailed(Exception):
    """A stage of the demo did not do what it is there to show."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much of each stage: accepted samples for each campaign, steps, prompts and candidates."""

    samples: int
    sft_steps: int
    prompts: int
    candidates: int
    dpo_steps: int


FULL = Size(samples=90, sft_steps=0, prompts=40, candidates=4, dpo_steps=10)
FAST = Size(samples=24, sft_steps=16, prompts=12, candidates=3, dpo_steps=3)


@dataclass(frozen=True, slots=True)
class Stage:
    """What a stage did: its seconds, its figures, and a sentence for people."""

    name: str
    seconds: float
    summary: str
    figures: dict[str, float | int | str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Demo:
    ws: Workspace
    host: str
    size: Size
    tell: Callable[[str], None]


async def run_demo(
    ws: Workspace,
    *,
    host: str = "local",
    fast: bool = False,
    tell: Callable[[str], None] = lambda _: None,
    on_stage: Callable[[Stage], None] = lambda _: None,
) -> list[Stage]:
    """Run every stage in a workspace that holds nothing yet. `tell` hears of progress, `on_stage` of each
    stage that is done. `host` is where the model is trained.

    Raises DemoFailed, and what the stages raise.
    """
    demo = _Demo(ws, host, FAST if fast else FULL, tell)
    stages: list[Stage] = []
    for name, stage in (
        ("generate", _generate),
        ("review", _review),
        ("fine-tune", _fine_tune),
        ("evaluate", _evaluate),
        ("prefer", _prefer),
        ("fine-tune again", _fine_tune_again),
        ("deploy", _deploy),
    ):
        tell(f"== {name}")
        done = await _timed(name, stage, demo)
        stages.append(done)
        on_stage(done)
    return stages


async def _timed(name: str, stage: Callable[[_Demo], Awaitable[Stage]], demo: _Demo) -> Stage:
    started = time.monotonic()
    done = await stage(demo)
    return replace(done, name=name, seconds=time.monotonic() - started)


async def _generate(demo: _Demo) -> Stage:
    """Two campaigns at once: the embedded provider, and the same engine as an OpenAI-compatible server."""
    ws = demo.ws
    async with EmbeddedServer(bundled_gguf(), BUNDLED_MODEL, parallel=8) as server:
        for name, provider, temperature in CAMPAIGNS:
            await create(
                ws,
                NewCampaign(
                    name=name,
                    provider=provider,
                    model=BUNDLED_MODEL,
                    target=demo.size.samples,
                    domains=(DOMAIN,),
                    base_url=server.base_url,
                    temperature=temperature,
                    parallel=4,
                    seed=int(temperature * 10),
                ),
            )
        async with asyncio.TaskGroup() as both:
            for name, _, _ in CAMPAIGNS:
                both.create_task(run_campaign(ws, name))
    stands = [await progress_of(ws, name) for name, _, _ in CAMPAIGNS]
    accepted, requests = sum(s.accepted for s in stands), sum(s.spent.requests for s in stands)
    if accepted < demo.size.samples:
        raise DemoFailed(
            f"only {accepted} samples were accepted; see {ws.logs}/campaign_{CAMPAIGNS[0][0]}.log"
        )
    summary = (
        f"two campaigns: {accepted} samples accepted of {requests} answers; the gates turned the rest away"
    )
    return Stage("", 0, summary, {"accepted": accepted, "requests": requests})


async def _review(demo: _Demo) -> Stage:
    approved = await approve_by_policy(
        demo.ws, Filter(states=("pending",)), "demo: equals the computed reference"
    )
    version = await build(demo.ws, DATASET)
    summary = (
        f"{approved.count} samples approved by a policy (not by a person); dataset {version.name}@{version.version}: "
        f"{version.train} train, {version.val} validation, {version.test} test, no family parted"
    )
    return Stage("", 0, summary, {"approved": approved.count, "train": version.train, "val": version.val})


async def _fine_tune(demo: _Demo) -> Stage:
    demo.tell("making the embedded model trainable ...")
    base = await prepare_base(demo.ws, demo.host)
    given: dict[str, str | int] = {"base_model": base.name}
    if demo.size.sft_steps:
        given["max_steps"] = demo.size.sft_steps
    values = recipe_values(demo.ws, "sft", "demo_sft", given)
    run = await start_sft(demo.ws, demo.host, values, dataset=DATASET, name=SFT)
    await _trained(demo, run)
    losses = [v for _, v in (await run_metrics(demo.ws, SFT, ["loss"]))["loss"] if v is not None]
    summary = (
        f"{len(losses)} steps of LoRA on {demo.host}: loss {losses[0]:.3f} at first, {losses[-1]:.3f} at last"
    )
    return Stage("", 0, summary, {"steps": len(losses), "first_loss": losses[0], "last_loss": losses[-1]})


async def _trained(demo: _Demo, run: Run) -> None:
    def follow(record: events.Record) -> None:
        event = record.event
        if isinstance(event, events.Metrics) and event.loss is not None:
            demo.tell(f"step {event.step}/{event.total_steps}: loss {event.loss:.4f}")

    assert run.job_id is not None  # noqa: S101 - a started run has a job
    job = await wait_for(demo.ws, run.job_id, follow)
    if job.state != "done":
        raise DemoFailed(f"run {run.name} is {job.state}: {job.error or 'see ' + str(job.log_path)}")


async def _evaluate(demo: _Demo) -> Stage:
    """The base against the fine-tuned model, on families that no sample was made from."""
    base = await _score(demo, BUNDLED_BASE)
    tuned = await _score(demo, f"run:{SFT}")
    report = demo.ws.evaluations / "demo_report.md"
    comparison, row = await compare_models(demo.ws, BUNDLED_BASE, f"run:{SFT}", report)
    verdict = verdict_words(comparison.overall)
    summary = f"{base} of the held-out items right before, {tuned} after: {verdict}; report: {report}"
    figures: dict[str, float | int | str | None] = {
        "base": base,
        "tuned": tuned,
        "verdict": row.verdict,
        "difference": row.difference,
        "low": row.low,
        "high": row.high,
        "p_value": row.p_value,
        "report": str(report),
    }
    return Stage("", 0, summary, figures)


async def _score(demo: _Demo, model: str) -> str:
    heldout = Path((await find(demo.ws, DATASET)).path)
    evaluation = await run_evaluation(
        demo.ws, model, [BENCHMARK], heldout=heldout, host=demo.host, max_new_tokens=24, batch_size=27
    )
    document = await evaluation_document(demo.ws, evaluation.id)
    benchmark = document["benchmarks"][0]
    demo.tell(f"{model}: {benchmark['passed']}/{benchmark['items']}, perplexity {document['perplexity']}")
    return f"{benchmark['passed']}/{benchmark['items']}"


async def _prefer(demo: _Demo) -> Stage:
    def tell(done: int, total: int) -> None:
        if done % 20 == 0:
            demo.tell(f"{done}/{total} candidates")

    demo.tell("merging and converting the fine-tuned model ...")
    gguf = await convert_to_gguf(demo.ws, f"run:{SFT}")
    made = await generate_pairs(
        demo.ws,
        model=f"gguf:{gguf.name}",
        num_samples=demo.size.prompts,
        scorer="reference",
        dataset=DATASET,
        batch="demo",
        candidates_per_prompt=demo.size.candidates,
        temperatures=TEMPERATURES,
        max_tokens=24,
        on_progress=tell,
    )
    if made.pairing.pairs == 0:
        raise DemoFailed("no pairs: every candidate of every prompt scored the same")
    await accept_by_policy(demo.ws, "demo", "demo: the computed reference decides")
    count = await export_pairs(demo.ws, demo.ws.training / "preferences.jsonl", batch="demo")
    g = made.generation
    summary = f"{g.candidates} candidates to {g.prompts} prompts, {count} pairs with a margin"
    return Stage(
        "", 0, summary, {"candidates": made.generation.candidates, "pairs": count, "ties": made.pairing.ties}
    )


async def _fine_tune_again(demo: _Demo) -> Stage:
    values = recipe_values(demo.ws, "dpo", "demo_dpo", {"max_steps": demo.size.dpo_steps})
    run = await start_dpo(
        demo.ws,
        demo.host,
        values,
        sft_model=f"run:{SFT}",
        preference_data=demo.ws.training / "preferences.jsonl",
        name=DPO,
    )
    await _trained(demo, run)
    margins = [
        v for _, v in (await run_metrics(demo.ws, DPO, ["rewards_margin"]))["rewards_margin"] if v is not None
    ]
    after = await _score(demo, f"run:{DPO}")
    comparison, row = await compare_models(
        demo.ws, f"run:{SFT}", f"run:{DPO}", demo.ws.evaluations / "demo_dpo_report.md"
    )
    summary = (
        f"DPO from the SFT adapter: reward margin {margins[0]:.3f} at first, {margins[-1]:.3f} at last; "
        f"{after} right, against the SFT model: {verdict_words(comparison.overall)}"
    )
    return Stage(
        "",
        0,
        summary,
        {"first_margin": margins[0], "last_margin": margins[-1], "dpo": after, "verdict": row.verdict},
    )


async def _deploy(demo: _Demo) -> Stage:
    model = f"run:{DPO}"
    details = await show_run(demo.ws, DPO)
    terms = Terms(allow_worse="the demo shows the way to an answer, whatever its small models learned")
    target = demo.ws.models / DEPLOYMENT
    folder = await deploy_folder(demo.ws, model, target, name=f"{DEPLOYMENT}-hf", terms=terms)
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(serve_gguf(demo.ws, model, name=DEPLOYMENT, terms=terms))
        question = "Write one 65816 instruction. Load the accumulator from direct page address $12."
        reply = ""
        async with chat(demo.ws, DEPLOYMENT, question, max_tokens=24) as pieces:
            async for piece in pieces:
                reply += piece
        endpoint = served.endpoint
    if not reply.strip():
        raise DemoFailed(f"{DEPLOYMENT} at {endpoint} answered nothing")
    summary = (
        f"{details.run.name} is a folder at {folder.details.get('folder')}, and as a GGUF it answered at {endpoint}: "
        f"{question!r} -> {reply.strip()!r}. For Ollama: hafs-tui deploy ollama run:{DPO} --tag {DEPLOYMENT}"
    )
    return Stage("", 0, summary, {"folder": str(folder.details.get("folder")), "reply": reply.strip()})
