"""One description of a parameter for every front: flags of the worker, flags of the program, forms.

A recipe is a frozen dataclass whose fields are made by `option()`. From it come the argparse flags of
`python -m backend.worker.sft` (`add_arguments`), the click options and dialogs of the program
(`describe`), the validation (`from_values`) and the JSON (`to_values`), so they cannot disagree.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from typing import Any, Literal, TypeVar

Kind = Literal["str", "int", "float", "bool", "list"]
T = TypeVar("T")

_KINDS: dict[Any, Kind] = {str: "str", int: "int", float: "float", bool: "bool", tuple[str, ...]: "list"}
_EXPECTED: dict[Kind, str] = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list of texts",
}


class ParameterError(ValueError):
    """Parameters that cannot be used: every problem found, one a line, each with its remedy."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Option:
    """One parameter as a front sees it. `minimum` and `maximum` are inclusive, `above` is exclusive."""

    name: str
    flag: str
    kind: Kind
    required: bool
    default: Any
    help: str
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()


def option(
    help: str,
    default: Any = MISSING,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A dataclass field that carries its own help and range. Without a default it is required."""
    limits = {"minimum": minimum, "maximum": maximum, "above": above, "choices": choices}
    return dataclasses.field(default=default, metadata={"help": help, **limits})


def describe(cls: type) -> tuple[Option, ...]:
    """The parameters of a recipe class, in the order of its fields."""
    hints = typing.get_type_hints(cls)
    return tuple(
        Option(
            name=field.name,
            flag=f"--{field.name}",
            kind=_KINDS[hints[field.name]],
            required=field.default is MISSING,
            default=None if field.default is MISSING else field.default,
            **field.metadata,
        )
        for field in dataclasses.fields(cls)
    )


def add_arguments(parser: argparse.ArgumentParser, cls: type) -> None:
    """Gives the parser one flag for each parameter, as `--lora_r` and as `--lora-r`.

    Flags that were not given are absent from the namespace, so that they can lie over a file's values
    (`given_values`); what is required is judged by `from_values`, once both are together.
    """
    types: dict[Kind, type] = {"int": int, "float": float, "str": str, "list": str}
    for parameter in describe(cls):
        flags = dict.fromkeys((parameter.flag, "--" + parameter.name.replace("_", "-")))
        text = parameter.help.replace("%", "%%")
        if parameter.default not in (None, "", (), False):
            text += f" (default {parameter.default})"
        common: dict[str, Any] = {"dest": parameter.name, "default": argparse.SUPPRESS, "help": text}
        if parameter.kind == "bool":
            parser.add_argument(*flags, action=argparse.BooleanOptionalAction, **common)
        elif parameter.kind == "list":
            parser.add_argument(*flags, nargs="+", action="extend", type=str, **common)
        else:
            common["choices"] = parameter.choices or None
            parser.add_argument(*flags, type=types[parameter.kind], **common)


def given_values(arguments: argparse.Namespace, cls: type) -> dict[str, Any]:
    """The parameters that were given as flags."""
    names = {parameter.name for parameter in describe(cls)}
    return {name: value for name, value in vars(arguments).items() if name in names}


def from_values(cls: type[T], values: Mapping[str, Any]) -> T:
    """Makes a recipe from JSON-like values.

    Raises:
        ParameterError: with every unknown key, missing key, wrong type and value out of range, and
            what the class's own `problems()` finds between fields.
    """
    parameters = {parameter.name: parameter for parameter in describe(cls)}
    found: list[str] = []
    accepted: dict[str, Any] = {}
    for name, value in values.items():
        if name not in parameters:
            near = difflib.get_close_matches(name, parameters, n=1)
            found.append(f"{name}: no such parameter" + (f"; did you mean {near[0]}?" if near else ""))
            continue
        try:
            accepted[name] = _accept(parameters[name], value)
        except ValueError as error:
            found.append(f"{name}: {error}")
    for parameter in parameters.values():
        if parameter.required and parameter.name not in values:
            found.append(f"{parameter.name}: missing; give {parameter.flag} ({parameter.help})")
    if found:
        raise ParameterError(found)
    made = cls(**accepted)
    between = getattr(made, "problems", None)
    if between is not None and (problems := between()):
        raise ParameterError(problems)
    return made


def to_values(recipe: Any) -> dict[str, Any]:
    """The recipe as JSON-like values: `from_values(type(recipe), to_values(recipe)) == recipe`."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(recipe).items()
    }


def _accept(parameter: Option, value: Any) -> Any:
    """The value in the parameter's type, or a ValueError that says what was expected."""
    expected = _EXPECTED[parameter.kind]
    if parameter.kind == "list":
        if isinstance(value, str) or not all(isinstance(part, str) for part in value):
            raise ValueError(f"expected {expected}, found {value!r}")
        return tuple(value)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = {
        "str": isinstance(value, str),
        "bool": isinstance(value, bool),
        "float": is_number,
        "int": is_number and float(value).is_integer(),
    }[parameter.kind]
    if not fits:
        raise ValueError(f"expected {expected}, found {value!r}")
    if parameter.kind == "str":
        if parameter.required and not value.strip():
            raise ValueError(f"is empty; {parameter.help}")
        if parameter.choices and value not in parameter.choices:
            raise ValueError(f"expected one of {', '.join(parameter.choices)}, found {value!r}")
        return value
    if parameter.kind == "bool":
        return value
    return _in_range(parameter, int(value) if parameter.kind == "int" else float(value))


def _in_range(parameter: Option, value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, found {value}")
    if parameter.minimum is not None and value < parameter.minimum:
        raise ValueError(f"expected at least {parameter.minimum:g}, found {value:g}")
    if parameter.above is not None and value <= parameter.above:
        raise ValueError(f"expected more than {parameter.above:g}, found {value:g}")
    if parameter.maximum is not None and value > parameter.maximum:
        raise ValueError(f"expected at most {parameter.maximum:g}, found {value:g}")
    return value
