"""Plans for real models, hosts and runs: the dimensions found, the card asked, the host's history counted in."""

from __future__ import annotations

import asyncio
import json
import statistics
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from backend.contract.options import from_values
from backend.contract.recipe import DpoRecipe, Recipe
from backend.hosts.catalog import open_named_host
from backend.registry.references import ResolvedModel, weights_of
from backend.settings import Workspace
from backend.store import memory_plans
from backend.store.runs import RunKind
from backend.training.data import TrainingRefused
from backend.training.dimensions import Dimensions, UnknownModel, from_config, known
from backend.training.planner import Advice, Plan, make_plan, nearest_fit, refuse
from backend.training.recipes import RECIPES
from backend.training.vram import GIB, Logits, StartAdapter
from remote import Host, HostError, LinkLost, Probe

_ANY = "(chosen at launch)"
# Runs whose predictions are this near to one another teach each other; a small model says little of a large.
_COMPARABLE = 4.0
_RECENT = 5


@dataclass(frozen=True, slots=True)
class Card:
    """A card to plan for. `name` is what people call it; `host` whose history corrects the prediction."""

    name: str
    bytes: int
    host: str = ""
    triton: bool = False

    @property
    def logits(self) -> Logits:
        """How the worker computes log-probabilities there. Triton comes with torch on Linux only."""
        return "tiled-triton" if self.triton else "tiled"


async def plan_run(
    ws: Workspace,
    kind: RunKind,
    values: Mapping[str, Any],
    reference: str,
    *,
    vram_gib: float | None = None,
    host: str | None = None,
) -> tuple[Plan, Advice | None, Card]:
    """The plan of a recipe, and the nearest one that fits where it does not (None: it fits, or none does).

    `reference` is the base (sft) or what DPO starts from; the card is one of `vram_gib`, else the host's first.
    With both, the host's history corrects the prediction for a card of that size.

    Raises ParameterError, ModelReferenceError, UnknownModel, TrainingRefused where the host has no card,
    SettingsError, HostError.
    """
    recipe = recipe_of(kind, values)
    model = await weights_of(ws, reference)
    if host is None:
        if vram_gib is None:
            raise TrainingRefused("a plan needs a card: give --vram-gib, or --host with one")
        card = Card(f"a card of {vram_gib:g} GiB", round(vram_gib * GIB))
        dimensions, start = await describe_model(ws, None, model)
    else:
        async with open_named_host(ws, host) as remote:
            found = await card_of(remote, await remote.probe())
            if found is None and vram_gib is None:
                raise TrainingRefused(f"host {host} has no NVIDIA card to plan for; give --vram-gib")
            card = found or Card(f"a card of {vram_gib:g} GiB", 0, host)
            if vram_gib is not None:
                card = Card(f"a card of {vram_gib:g} GiB", round(vram_gib * GIB), host, card.triton)
            dimensions, start = await describe_model(ws, remote, model)
    plan = await plan_for(ws, recipe, dimensions, start, card)
    return plan, _advice(plan, start, card), card


async def plan_for(
    ws: Workspace, recipe: Recipe, model: Dimensions, start: StartAdapter | None, card: Card
) -> Plan:
    """The plan, corrected by what comparable runs of the card's host took. Raises UnknownModel."""
    start = start if isinstance(recipe, DpoRecipe) else None
    plan = make_plan(model, recipe, card.bytes, start=start, logits=card.logits)
    correction = await correction_for(ws, card.host, plan.predicted) if card.host else 1.0
    return make_plan(model, recipe, card.bytes, start=start, logits=card.logits, correction=correction)


async def correction_for(ws: Workspace, host: str, predicted: int) -> float:
    """Measured over predicted, the median of the last five comparable runs on a host; 1 where there are none.

    Comparable: a prediction between a quarter and four times of this one.
    """
    ratios: list[float] = []
    for peak in await memory_plans.peaks(ws.db, host):
        near = 1 / _COMPARABLE <= predicted / (peak.predicted * 2**20) <= _COMPARABLE
        if peak.measured is not None and near and len(ratios) < _RECENT:
            ratios.append(peak.measured / peak.predicted)
    return statistics.median(ratios) if ratios else 1.0


async def fit_or_refuse(
    ws: Workspace, host: Host, probe: Probe, recipe: Recipe, model: ResolvedModel, *, allow: bool = False
) -> Plan | None:
    """The plan of a run about to be launched; None where nothing can be said (no card, or dimensions unknown).

    Raises DoesNotFit where it cannot fit the host's card, unless allowed.
    """
    card = await card_of(host, probe)
    if card is None:
        return None
    try:
        dimensions, start = await describe_model(ws, host, model)
        plan = await plan_for(ws, recipe, dimensions, start, card)
    except UnknownModel:
        return None
    if not plan.fits and not allow:
        raise refuse(plan, _advice(plan, start, card), card.name)
    return plan


def recipe_of(kind: RunKind, values: Mapping[str, Any]) -> Recipe:
    """A recipe without its places, which a plan does not need. Raises ParameterError."""
    places = {"output_dir": _ANY, "base_model": _ANY}
    places |= {"dataset": _ANY} if kind == "sft" else {"sft_model": _ANY, "preference_data": _ANY}
    return from_values(RECIPES[kind], {**places, **{k: v for k, v in values.items() if k not in places}})


async def card_of(host: Host, probe: Probe) -> Card | None:
    """The card that a run would use: the host's first; None where it has none or does not tell its memory.

    Raises HostError.
    """
    if not probe.gpus:
        return None
    readings = host.gpus()
    try:
        first = await anext(readings)
    finally:
        if isinstance(readings, AsyncGenerator):
            await readings.aclose()
    for reading in sorted(first, key=lambda reading: reading.index):
        if reading.index >= 0 and reading.memory_total_mib:
            size = round(reading.memory_total_mib * 2**20)
            return Card(f"{reading.name} on {host.name}", size, host.name, probe.os == "linux")
    return None


async def describe_model(
    ws: Workspace, host: Host | None, model: ResolvedModel
) -> tuple[Dimensions, StartAdapter | None]:
    """The dimensions of a model (of an adapter's base), and the adapter where it is one.

    A config.json wins, here or on the host; else `config/models.toml`. Raises UnknownModel, HostError.
    """
    start = None
    base, name = model.location, model.name.removeprefix("hub:")
    if model.kind == "adapter":
        config = await _json(host, model.location, "adapter_config.json") or {}
        start = _adapter_of(config)
        base = name = str(model.base or config.get("base_model_name_or_path") or "")
    if not base:
        raise UnknownModel(f"{model.reference} does not say what it is an adapter of; give --base_model")
    if not base.startswith("hub:"):
        found = await _json(host, base, "config.json")
        if found is not None:
            return from_config(found, name, f"{base}/config.json"), start
    return known(base, ws), start


def _adapter_of(config: Mapping[str, Any]) -> StartAdapter:
    targets = config.get("target_modules", "all-linear")
    names = targets if isinstance(targets, str) else ",".join(sorted(targets))
    return StartAdapter(int(config.get("r", 16)), names, bool(config.get("use_dora", False)))


async def _json(host: Host | None, folder: str, name: str) -> dict[str, Any] | None:
    """A JSON file of a model's folder, here or on the host; None where neither has it. Raises UnknownModel."""
    try:
        text: str | bytes | None = await asyncio.to_thread(_text_here, folder, name)
        if text is None and host is not None:
            text = await host.read(f"{folder}/{name}")
        return None if text is None else cast(dict[str, Any], json.loads(text))
    except ValueError as error:
        raise UnknownModel(f"{folder}/{name} cannot be read: {error}") from error
    except LinkLost:
        raise
    except HostError:
        return None  # not there: the host has another way to the model, or will say so itself


def _text_here(folder: str, name: str) -> str | None:
    file = Path(folder).expanduser() / name
    return file.read_text("utf-8") if file.is_file() else None


def _advice(plan: Plan, start: StartAdapter | None, card: Card) -> Advice | None:
    if plan.fits:
        return None
    start = start if isinstance(plan.recipe, DpoRecipe) else None
    return nearest_fit(plan, start=start, logits=card.logits)
