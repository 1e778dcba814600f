"""Does a run fit its card, and if not: the nearest recipe that does.

A prediction (`vram.parts`) is corrected by what earlier runs on the same host really took, and compared with
the card less a margin. The search for a recipe that fits changes as little as it can.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from backend.contract.options import describe
from backend.contract.recipe import Recipe
from backend.training.data import TrainingRefused
from backend.training.dimensions import Dimensions
from backend.training.vram import CONTEXT_BYTES, GIB, Logits, Part, StartAdapter, parts, trained_in_8bit

# Of a card: what a desktop and the driver hold, what the allocator loses to fragments, and what the prediction
# may be wrong by. A card that is too full does not fail on Windows: it spills into shared memory, and crawls.
MARGIN = 0.06
SHORTEST, LOWEST_RANK = 256, 8
PLACES = ("output_dir", "dataset", "eval_dataset", "preference_data", "sft_model", "base_model")

R = TypeVar("R", bound=Recipe)


@dataclass(frozen=True, slots=True)
class Plan:
    """The need of one recipe on one card. Sizes in bytes. `correction` is what earlier runs on the host took
    for each byte that was predicted (1 where there are none)."""

    model: Dimensions
    recipe: Recipe
    parts: tuple[Part, ...]
    card: int
    correction: float = 1.0

    @property
    def predicted(self) -> int:
        """What torch will allocate at its peak, before any correction."""
        return sum(part.bytes for part in self.parts) - CONTEXT_BYTES

    @property
    def total(self) -> int:
        """The need: the corrected prediction and the CUDA context."""
        return round(self.predicted * self.correction) + CONTEXT_BYTES

    @property
    def available(self) -> int:
        """The card less its margin."""
        return round(self.card * (1 - MARGIN))

    @property
    def fits(self) -> bool:
        return self.total <= self.available

    @property
    def notes(self) -> tuple[str, ...]:
        """What is doubtful about the recipe whether or not it fits."""
        found = []
        recipe, longest = self.recipe, self.model.max_positions
        if longest and recipe.max_length > longest:
            found.append(f"max_length {recipe.max_length} is more than the {longest} positions of the model")
        if recipe.fp16:
            found.append("fp16: gradients can overflow; bf16 takes the same memory and cannot. Give --bf16")
        return tuple(found)


class Change(NamedTuple):
    """One field of a recipe that the advice changes."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Advice:
    """The nearest recipe that fits, and what it changes."""

    plan: Plan
    changes: tuple[Change, ...]

    @property
    def flags(self) -> tuple[str, ...]:
        """The changes as flags of `hafs-tui train` and of the worker."""
        return tuple(word for change in self.changes for word in as_flag(change.field, change.after))


class DoesNotFit(TrainingRefused):
    """A run that its card cannot hold; the message has the need, and the nearest recipe that fits."""

    exit_code = 3

    def __init__(self, message: str, plan: Plan, advice: Advice | None) -> None:
        super().__init__(message)
        self.plan, self.advice = plan, advice


def make_plan(
    model: Dimensions,
    recipe: Recipe,
    card: int,
    *,
    start: StartAdapter | None = None,
    correction: float = 1.0,
    logits: Logits = "tiled",
) -> Plan:
    """The plan of a recipe for a card of so many bytes. Raises UnknownModel for a target the model lacks."""
    return Plan(model, recipe, parts(model, recipe, start=start, logits=logits), card, correction)


def nearest_fit(plan: Plan, *, start: StartAdapter | None = None, logits: Logits = "tiled") -> Advice | None:
    """The nearest recipe that fits; None where no recipe of this model does.

    Steps are taken in the order of `_steps` until one fits; then each that turned out not to be needed is
    taken back, the greatest change first.
    """

    def planned(changed: Recipe) -> Plan:
        return make_plan(
            plan.model, changed, plan.card, start=start, correction=plan.correction, logits=logits
        )

    taken: list[dict[str, Any]] = []
    for step in _steps(plan.recipe, start):
        taken.append(step)
        if planned(_with(plan.recipe, taken)).fits:
            break
    else:
        return None
    for step in list(taken):
        fewer = [one for one in taken if one is not step]
        if planned(_with(plan.recipe, fewer)).fits:
            taken = fewer
    best = planned(_with(plan.recipe, taken))
    before, after = dataclasses.asdict(plan.recipe), dataclasses.asdict(best.recipe)
    changes = tuple(Change(name, before[name], after[name]) for name in after if before[name] != after[name])
    return Advice(best, changes)


def _steps(recipe: Recipe, start: StartAdapter | None) -> Iterator[dict[str, Any]]:
    """What to change, in this order: 4 bits (in bf16: with fp16 its gradients could not be unscaled), gradient
    checkpointing, 8-bit Adam, a smaller batch of the same effective size, shorter samples, a lower rank. A
    later step of a kind replaces the one before it."""
    if not recipe.load_in_4bit:
        yield {"load_in_4bit": True, "fp16": False, "bf16": True}
    if not recipe.gradient_checkpointing:
        yield {"gradient_checkpointing": True}
    if not trained_in_8bit(recipe):
        yield {"optim": "paged_adamw_8bit"}
    effective = recipe.batch_size * recipe.gradient_accumulation_steps
    for batch in range(recipe.batch_size - 1, 0, -1):
        if effective % batch == 0:
            yield {"batch_size": batch, "gradient_accumulation_steps": effective // batch}
    length = recipe.max_length // 2
    while length >= SHORTEST:
        yield {"max_length": length}
        length //= 2
    rank = recipe.lora_r // 2
    while start is None and rank >= LOWEST_RANK:
        yield {"lora_r": rank, "lora_alpha": max(1, round(recipe.lora_alpha * rank / recipe.lora_r))}
        rank //= 2


def _with(recipe: R, steps: list[dict[str, Any]]) -> R:
    changed: dict[str, Any] = {}
    for step in steps:
        changed.update(step)
    return dataclasses.replace(recipe, **changed)


def as_flag(field: str, value: Any) -> tuple[str, ...]:
    """A recipe's field as the flag that gives it."""
    if isinstance(value, bool):
        return (f"--{field}" if value else f"--no-{field.replace('_', '-')}",)
    return (f"--{field}", str(value))


def as_flags(recipe: Recipe) -> tuple[str, ...]:
    """A whole recipe as flags, without its places and what is as the default says."""
    found: list[str] = []
    for option in describe(type(recipe)):
        value = getattr(recipe, option.name)
        if option.name not in PLACES and value != option.default:
            found += as_flag(option.name, value)
    return tuple(found)


def refuse(plan: Plan, advice: Advice | None, where: str) -> DoesNotFit:
    """The error that says why a run is not launched. `where` names the card."""
    need = f"{plan.model.name} with this recipe needs about {gib(plan.total)}; {where} gives {gib(plan.available)}"
    if advice is None:
        remedy = "No recipe of this model fits it: take a smaller model or a larger card"
        return DoesNotFit(f"{need}. {remedy}", plan, advice)
    lines = [f"{need}.", f"The nearest recipe that fits ({gib(advice.plan.total)}) changes:"]
    lines += [f"  {change.field}: {change.before} -> {change.after}" for change in advice.changes]
    lines += [f"Give these flags too: {' '.join(advice.flags)}", "(--allow-oversize launches it as it is.)"]
    return DoesNotFit("\n".join(lines), plan, advice)


def gib(size: int) -> str:
    """Bytes for people, in GiB."""
    return f"{size / GIB:.1f} GiB"
