"""Fields of a form from the description of a recipe: the same that the flags of the command line come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backend.contract.options import Option
from backend.store.runs import RunKind
from backend.training.recipes import PLACES, Preset, options
from hafs_tui.widgets.form import Answers, Field, Kind, Value

# Shown first, in this order; the rest of a recipe follows as it is declared.
_FIRST = (
    "learning_rate", "beta", "num_epochs", "max_steps", "batch_size", "gradient_accumulation_steps", "max_length",
    "lora_r", "lora_alpha", "lora_dropout", "load_in_4bit", "bf16", "gradient_checkpointing",
)  # fmt: skip
_MODELS = ("base_model", "sft_model")
_KINDS = {"int": Kind.INT, "float": Kind.FLOAT, "bool": Kind.BOOL, "str": Kind.TEXT}


def recipe_fields(kind: RunKind, presets: Mapping[str, Preset], preset: str) -> list[Field]:
    """A choice of preset, and a field for each parameter that is not a place or a model.

    `preset` is the one whose values are there first; choosing another one fills them anew.
    """
    shown = _shown(kind)
    choices = [("", "the recipe's own defaults")]
    choices += [(name, f"{name}: {one.title}") for name, one in presets.items() if one.kind == kind]
    filled = {name: _values(shown, one.values) for name, one in presets.items() if one.kind == kind}
    filled[""] = _values(shown, {})
    first = preset if preset in filled else ""
    return [
        Field("preset", "Preset", Kind.CHOICE, first, choices=choices, help="Fills the fields below.",
              fills=lambda name: filled[name]),
        *(_field(option, filled[first][option.name]) for option in shown),
    ]  # fmt: skip


def recipe_given(kind: RunKind, answers: Answers) -> dict[str, Any]:
    """The parameters of a recipe from the form's answers; those left empty keep their default."""
    values = {option.name: answers.values[option.name] for option in _shown(kind)}
    return {name: value for name, value in values.items() if value is not None and value != ""}


def _shown(kind: RunKind) -> list[Option]:
    found = [option for option in options(kind) if option.name not in (*PLACES, *_MODELS)]
    ranks = {name: rank for rank, name in enumerate(_FIRST)}
    return sorted(found, key=lambda option: ranks.get(option.name, len(ranks)))


def _values(shown: list[Option], preset: Mapping[str, Any]) -> dict[str, Value]:
    return {option.name: preset.get(option.name, option.default) for option in shown}


def _field(option: Option, default: Value) -> Field:
    above = option.above

    def check(value: Value) -> str | None:
        if above is not None and isinstance(value, int | float) and value <= above:
            return f"more than {above:g}"
        return None

    return Field(
        option.name,
        option.name.replace("_", " "),
        Kind.CHOICE if option.choices else _KINDS[option.kind],
        default,
        help=option.help,
        required=False,
        minimum=option.minimum,
        maximum=option.maximum,
        choices=[(choice, choice) for choice in option.choices],
        check=check,
    )
