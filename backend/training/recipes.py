"""Recipes: presets from TOML files over which the given values lie.

A preset is `config/recipes/<name>.toml` (or one of the same name in the workspace's `config/recipes/`):
`kind`, `title` and a table `[values]` of the fields of the contract's recipe.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from backend.contract.options import Option, describe
from backend.contract.recipe import DpoRecipe, SftRecipe
from backend.settings import SettingsError, Workspace
from backend.store.runs import RunKind

RECIPES: dict[RunKind, type[SftRecipe] | type[DpoRecipe]] = {"sft": SftRecipe, "dpo": DpoRecipe}
# What a launch decides by itself: the places on the host.
PLACES = ("output_dir", "dataset", "eval_dataset", "preference_data")


@dataclass(frozen=True, slots=True)
class Preset:
    """Named values of a recipe. `file` is where a person finds it."""

    name: str
    kind: RunKind
    title: str
    values: dict[str, Any]
    file: str


def presets(ws: Workspace) -> dict[str, Preset]:
    """Every preset by name; the workspace's own lie over the packaged ones. Raises SettingsError."""
    found: dict[str, Preset] = {}
    for folder in (resources.files("config") / "recipes", ws.config / "recipes"):
        if folder.is_dir():
            files = [file for file in folder.iterdir() if file.name.endswith(".toml")]
            for file in sorted(files, key=lambda file: file.name):
                found[file.name.removesuffix(".toml")] = _read(file)
    return found


def recipe_values(
    ws: Workspace, kind: RunKind, preset: str | None, given: Mapping[str, Any]
) -> dict[str, Any]:
    """A preset's values with the given ones over them. Raises SettingsError for an unknown preset."""
    if preset is None:
        return dict(given)
    found = presets(ws)
    if preset not in found or found[preset].kind != kind:
        names = ", ".join(name for name, one in found.items() if one.kind == kind) or "none"
        raise SettingsError(f"no preset {preset} for {kind}; there are: {names}")
    return {**found[preset].values, **given}


def options(kind: RunKind) -> tuple[Option, ...]:
    """The parameters of a recipe, as flags and forms show them."""
    return describe(RECIPES[kind])


def _read(file: Traversable) -> Preset:
    try:
        document = tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: not valid TOML: {error}") from error
    kind = document.get("kind")
    if kind not in RECIPES:
        raise SettingsError(f"{file}: kind: expected one of {', '.join(RECIPES)}, found {kind!r}")
    values = document.get("values", {})
    known = {option.name for option in options(kind)}
    unknown = [f"{file}: values.{key}: no such parameter of {kind}" for key in values if key not in known]
    if unknown:
        raise SettingsError("\n".join(unknown))
    return Preset(file.name.removesuffix(".toml"), kind, str(document.get("title", "")), values, str(file))
