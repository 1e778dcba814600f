"""What candidates are asked for: prompts of approved samples or of a dataset, never of a test set.

A prompt that is in any version's test split or in a benchmark, or whose family is in a test split, is left
out: a model that was tuned on it could not be measured by it any more.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from backend.datasets.catalog import find
from backend.datasets.checking import benchmark_files
from backend.datasets.rows import prompt_text
from backend.evaluation.benchmarks import read_benchmark
from backend.generation.domains import load_domains
from backend.preferences.errors import PreferenceError
from backend.settings import Workspace
from backend.similarity.exact import exact_hash
from backend.similarity.normalise import Normalise
from backend.store import samples
from backend.store.samples import Filter, Sample

_PAGE = 250


@dataclass(frozen=True, slots=True)
class PromptItem:
    """One prompt to make candidates for. `key` is the same for the same prompt; `reference` is a right answer
    where one is known, `normalise` how answers are compared with it; `seed` the id of the domain's seed that it
    was made from."""

    key: str
    prompt: str
    reference: str | None
    domain: str
    family: str
    normalise: Normalise
    seed: str | None = None


async def from_samples(
    ws: Workspace, filter: Filter, num_samples: int, *, seed: int = 0, normalise: Normalise | None = None
) -> list[PromptItem]:
    """Up to `num_samples` different prompts of the filter's samples (without states in it: of approved ones),
    drawn by `seed`. `normalise` None is what the sample's domain says, or "text". Raises PreferenceError
    where none is left."""
    chosen = filter if filter.states else replace(filter, states=("approved",))
    return await _items(ws, await samples.ids(ws.db, chosen), num_samples, seed, normalise, "the filter")


async def from_dataset(
    ws: Workspace,
    ref: str,
    num_samples: int,
    *,
    split: Literal["train", "val"] = "train",
    seed: int = 0,
    normalise: Normalise | None = None,
) -> list[PromptItem]:
    """Up to `num_samples` different prompts of one split of the version `NAME[@VERSION]`, as `from_samples`.
    Raises PreferenceError for the test split or where none is left, DatasetError for an unknown version."""
    if split not in ("train", "val"):
        raise PreferenceError(f"prompts of {ref}: the split {split!r} is for measuring; use train or val")
    version = await find(ws, ref)
    rows = await ws.db.fetch_all(
        "SELECT sample_id FROM dataset_rows WHERE dataset_id = ? AND split = ? ORDER BY sample_id",
        (version.id, split),
    )
    return await _items(
        ws, [row[0] for row in rows], num_samples, seed, normalise, f"{version.name}@{version.version}"
    )


async def _items(
    ws: Workspace, ids: Sequence[int], num_samples: int, seed: int, normalise: Normalise | None, where: str
) -> list[PromptItem]:
    families = {
        row[0]
        for row in await ws.db.fetch_all(
            "SELECT DISTINCT family FROM samples JOIN dataset_rows ON sample_id = id WHERE split = 'test'"
        )
    }
    measured = await asyncio.to_thread(_benchmark_prompts, ws)
    normalisers = await asyncio.to_thread(_normalisers, ws)
    found: dict[str, PromptItem] = {}
    for start in range(0, len(ids), _PAGE):
        page = await samples.by_ids(ws.db, ids[start : start + _PAGE])
        for item in await asyncio.to_thread(_page_items, page, normalise, normalisers):
            if item.family not in families and item.key not in measured:
                found.setdefault(item.key, item)
    if not found:
        raise PreferenceError(
            f"no prompt of {where} can be used: {len(ids)} samples, of which none is outside of the test splits "
            "and benchmarks; approve or import more samples"
        )
    return sorted(found.values(), key=lambda item: _drawn(seed, item.key))[:num_samples]


def _page_items(
    page: Iterable[Sample], given: Normalise | None, normalisers: dict[str, Normalise]
) -> list[PromptItem]:
    items = []
    for sample in page:
        prompt = prompt_text(sample.instruction, sample.input)
        reference = sample.extra.get("reference") or (sample.output if sample.state == "approved" else None)
        normalise = given or normalisers.get(sample.domain, "text")
        items.append(
            PromptItem(
                key=exact_hash(prompt),
                prompt=prompt,
                reference=reference,
                domain=sample.domain,
                family=sample.family,
                normalise=normalise,
                seed=sample.extra.get("seed"),
            )
        )
    return items


def _benchmark_prompts(ws: Workspace) -> set[str]:
    return {exact_hash(item.prompt) for file in benchmark_files(ws) for item in read_benchmark(file).items}


def _normalisers(ws: Workspace) -> dict[str, Normalise]:
    return {name: domain.gates.normalise for name, domain in load_domains(ws.config).items()}


def _drawn(seed: int, key: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{key}".encode()).digest()
