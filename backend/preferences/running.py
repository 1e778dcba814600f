"""The whole stage in one call, as a screen's form and `preferences generate` ask for it: prompts, candidates,
scores, pairs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from backend.datasets.catalog import find
from backend.deployment.answering import open_answering
from backend.execution.pool import open_execution
from backend.execution.tools import find_tools
from backend.generation.domains import load_domains
from backend.preferences.candidates import Generation, generate
from backend.preferences.errors import PreferenceError
from backend.preferences.pairing import PairingReport, pair_up
from backend.preferences.prompts import from_dataset, from_samples
from backend.preferences.scorers import (
    ExecutionScorer,
    HumanScorer,
    LlmScorer,
    ReferenceScorer,
    Scorer,
    load_rubric,
)
from backend.settings import Workspace
from backend.similarity.normalise import Normalise
from backend.store.samples import Filter

ScorerName = Literal["reference", "execution", "llm", "human"]


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a batch."""

    generation: Generation
    pairing: PairingReport


async def generate_pairs(
    ws: Workspace,
    *,
    model: str,
    num_samples: int,
    scorer: ScorerName,
    dataset: str | None = None,
    candidates_per_prompt: int = 4,
    judge: str | None = None,
    rubric: str = "answer_quality",
    normalise: Normalise | None = None,
    batch: str | None = None,
    temperatures: Sequence[float] = (0.2, 0.7, 1.0),
    max_tokens: int | None = 512,
    system: str = "",
    min_margin: float = 0.1,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Made:
    """Ask `model` for candidates to the training prompts of `dataset` (None: of all approved samples), score
    them, and store the pairs as pending.

    `model` and `judge` are references as `api:provider/model`, `deployment:NAME`, `ollama:TAG`, `gguf:NAME`.
    Without a `batch` its name follows from model, dataset and scorer, so the same call after a crash goes on.
    `on_progress(done, wanted)` counts candidates. Raises PreferenceError, DatasetError, ProviderError,
    ModelReferenceError, LeaseHeldError.
    """
    if scorer == "llm" and not judge:
        raise PreferenceError("the scorer llm needs a judge: --judge api:provider/model")
    if dataset is None:
        items = await from_samples(ws, Filter(), num_samples, seed=seed, normalise=normalise)
        named = "approved"
    else:
        version = await find(ws, dataset)
        named = f"{version.name}@{version.version}"
        items = await from_dataset(ws, named, num_samples, seed=seed, normalise=normalise)
    name = batch or re.sub(r"[^\w@.-]+", "-", f"{model}-{named}-{scorer}")
    async with open_answering(ws, model) as answering, _scorer(ws, scorer, judge, rubric) as judging:
        generation = await generate(
            ws,
            answering.provider,
            answering.model,
            items,
            judging,
            batch=name,
            candidates_per_prompt=candidates_per_prompt,
            temperatures=temperatures,
            max_tokens=max_tokens,
            system=system,
            parallel=answering.parallel,
            on_progress=None
            if on_progress is None
            else lambda made: on_progress(made.candidates, made.wanted),
        )
    return Made(generation, await pair_up(ws, name, min_margin=min_margin, seed=seed))


@asynccontextmanager
async def _scorer(ws: Workspace, name: ScorerName, judge: str | None, rubric: str) -> AsyncIterator[Scorer]:
    if name == "reference":
        yield ReferenceScorer()
    elif name == "execution":
        domains = await asyncio.to_thread(load_domains, ws.config)
        async with open_execution(find_tools(ws.settings.tools)) as execution:
            yield ExecutionScorer(execution, domains)
    elif name == "human":
        yield HumanScorer()
    else:
        async with open_answering(ws, judge or "") as judging:
            yield LlmScorer(ws, judging.provider, judging.model, load_rubric(ws, rubric))
