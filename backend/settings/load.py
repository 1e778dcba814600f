"""Reads settings.toml and hosts.toml: the user's file lies over the packaged defaults.

An error names the file, the line, the key, and what was expected there.
"""

from __future__ import annotations

import os
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import tomlkit
from pydantic import BaseModel, ValidationError

from backend.settings.models import HostSettings, HostsFile, Settings

Model = TypeVar("Model", bound=BaseModel)

LOCAL = HostSettings(kind="local")


class SettingsError(Exception):
    """A file of settings cannot be used; the message names file, line, key and what was expected."""


def packaged(name: str) -> str:
    """The text of a packaged file of `config/`."""
    return (resources.files("config") / name).read_text("utf-8")


def read_toml(path: Path) -> tuple[str, dict[str, Any]]:
    """The text and the tables of a TOML file; ("", {}) where there is none."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return "", {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from error


def line_of(text: str, key: tuple[str | int, ...]) -> int | None:
    """The line (from 1) on which the TOML key stands, or its nearest table; None where neither is found."""
    wanted = [part for part in key if isinstance(part, str)]
    table: list[str] = []
    nearest: int | None = None
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[+([^\]]+)\]", line)
        assignment = re.match(r"\s*([\w\"'.\-]+)\s*=", line)
        if header:
            table = [part.strip(" \"'") for part in header[1].split(".")]
            here = table
        elif assignment:
            here = table + [part.strip(" \"'") for part in assignment[1].split(".")]
        else:
            continue
        if here == wanted:
            return number
        if here == wanted[: len(here)]:
            nearest = number
    return nearest


def validate(model: type[Model], values: dict[str, Any], path: Path, text: str) -> Model:
    """`values` as the model; raises SettingsError with every problem, one a line."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            line = line_of(text, problem["loc"])
            key = ".".join(str(part) for part in problem["loc"])
            place = f"{path}:{line}" if line else f"{path}"
            if problem["type"] == "extra_forbidden":
                problems.append(f"{place}: {key}: no such key; remove it or mend its spelling")
            else:
                problems.append(f"{place}: {key}: {problem['msg']}, found {problem['input']!r}")
        raise SettingsError("\n".join(problems)) from error


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Tables joined key by key; any other value of `above` takes the place of the one below."""
    joined = dict(below)
    for key, value in above.items():
        old = joined.get(key)
        joined[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return joined


def load_settings(config: Path) -> Settings:
    """The settings of a workspace whose config folder is `config`. Raises SettingsError."""
    path = config / "settings.toml"
    text, values = read_toml(path)
    return validate(Settings, merge(tomllib.loads(packaged("settings.toml")), values), path, text)


def load_hosts(config: Path) -> dict[str, HostSettings]:
    """Every host by name; "local", this machine, is always one of them. Raises SettingsError."""
    path = config / "hosts.toml"
    text, values = read_toml(path)
    return {"local": LOCAL, **validate(HostsFile, values, path, text).hosts}


def save_host(config: Path, name: str, host: HostSettings) -> None:
    """Write a host into hosts.toml, keeping the user's comments and the other hosts."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", name):
        raise SettingsError(f"{name!r} cannot name a host: use letters, digits, '.', '_' and '-'")
    table = tomlkit.table()
    for key, value in host.model_dump(mode="json", exclude_defaults=True).items():
        table[key] = value
    document = _hosts_document(config)
    document.setdefault("hosts", tomlkit.table(is_super_table=True))[name] = table
    load = validate(HostsFile, document.unwrap(), config / "hosts.toml", document.as_string())
    write_text(config / "hosts.toml", document.as_string())
    if name not in load.hosts:
        raise SettingsError(f"{config / 'hosts.toml'}: host {name} could not be written")


def remove_host(config: Path, name: str) -> None:
    """Take a host out of hosts.toml. Raises SettingsError when it is not there."""
    document = _hosts_document(config)
    if name not in document.get("hosts", {}):
        raise SettingsError(f"{config / 'hosts.toml'}: no host named {name}")
    del document["hosts"][name]
    write_text(config / "hosts.toml", document.as_string())


def _hosts_document(config: Path) -> tomlkit.TOMLDocument:
    load_hosts(config)
    path = config / "hosts.toml"
    return tomlkit.parse(path.read_text("utf-8") if path.exists() else "")


def write_text(path: Path, text: str) -> None:
    """Write beside and rename into place, so that a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
