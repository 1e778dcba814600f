"""A recipe's fields as options of commands: the same for `train sft`, `train dpo` and `train plan`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import click

from backend.contract.options import Option, describe

_TYPES: dict[str, Any] = {"str": str, "int": int, "float": float, "list": str}


def recipe_options(recipe: type, left_out: Collection[str] = ()) -> Callable[[Any], Any]:
    """One flag for each field of the recipe, as the request writes it (--lora_r) and with dashes."""

    def decorate(function: Any) -> Any:
        for parameter in reversed(describe(recipe)):
            if parameter.name not in left_out:
                function = _option(parameter)(function)
        return function

    return decorate


def given(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that were given."""
    return {name: value for name, value in flags.items() if value is not None}


def _option(parameter: Option) -> Callable[[Any], Any]:
    text = parameter.help[:1].upper() + parameter.help[1:]
    if parameter.default not in (None, "", (), False):
        text += f"  [default: {parameter.default}]"
    dashed = "--" + parameter.name.replace("_", "-")
    flags = list(dict.fromkeys((parameter.flag, dashed)))
    if parameter.kind == "bool":
        off = "--no-" + parameter.name.replace("_", "-")
        return click.option(
            "/".join((parameter.flag, off)), *flags[1:], parameter.name, default=None, help=text
        )
    kind = click.Choice(parameter.choices) if parameter.choices else _TYPES[parameter.kind]
    return click.option(*flags, parameter.name, type=kind, default=None, help=text + ".")
