"""Where asar and the SNES core are on this machine. The one search of both: gates, benchmarks and doctor ask here.

What the settings or the environment name is taken, or missing: nothing else is then looked for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from backend.execution import messages
from backend.settings import models

ChildModule = Literal["asar_child", "core_child"]
_PACKAGES = Path(__file__).parents[2]
# The balanced core first. The performance core is not looked for: it multiplies and divides at once, and calls
# code right that reads $4216 too early.
_CORES = ("bsnes_mercury_balanced_libretro", "bsnes_mercury_accuracy_libretro", "bsnes_libretro")
_CORE_FOLDERS = (
    "/usr/lib/*/libretro",
    "/usr/lib/libretro",
    "/usr/lib64/libretro",
    "/usr/local/lib/libretro",
    "~/.config/retroarch/cores",
    "~/Library/Application Support/RetroArch/cores",
)
_ASAR_FOLDERS = ("/usr/local/bin", "/opt/homebrew/bin", "~/.local/bin")


@dataclass(frozen=True, slots=True)
class Found:
    """A tool, or why there is none (`reason` is empty where `path` is not None)."""

    path: Path | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Tools:
    """What answers are executed with."""

    asar: Found
    core: Found


def find_tools(settings: models.Tools) -> Tools:
    """asar and the core, each by settings, then environment, then PATH and the known folders."""
    return Tools(
        asar=_find("asar", settings.asar, "tools.asar", "HAFS_ASAR", _asar_places()),
        core=_find("SNES core", settings.snes_core, "tools.snes_core", "HAFS_SNES_CORE", _core_places()),
    )


def _find(what: str, setting: Path | None, key: str, variable: str, places: Iterator[Path]) -> Found:
    if sys.platform == "win32":
        return Found(None, "execution needs processes of POSIX: it runs on Linux and macOS")
    environment = os.environ.get(variable)
    named = (setting, f"{key} in settings.toml") if setting else (environment, variable)
    if named[0]:
        path = Path(named[0]).expanduser().absolute()
        return Found(path) if path.is_file() else Found(None, f"{named[1]} names {path}, which is no file")
    path_found = next((place.absolute() for place in places if place.is_file()), None)
    return Found(
        path_found, "" if path_found else f"no {what} here: set {variable}, or {key} in settings.toml"
    )


def _asar_places() -> Iterator[Path]:
    on_path = shutil.which("asar")
    if on_path:
        yield Path(on_path)
    yield Path(sys.prefix) / "share" / "hafs" / "asar" / "asar"
    for folder in _ASAR_FOLDERS:
        yield Path(folder).expanduser() / "asar"


def _core_places() -> Iterator[Path]:
    ending = "dylib" if sys.platform == "darwin" else "so"
    for name in _CORES:
        for folder in _CORE_FOLDERS:
            root = Path(folder).expanduser()
            yield from sorted(Path(root.anchor).glob(str(root.relative_to(root.anchor) / f"{name}.{ending}")))


def asar_version(path: Path) -> str:
    """What `asar --version` says. Raises OSError where it cannot be started."""
    said = subprocess.run([path, "--version"], capture_output=True, timeout=10, check=False)
    return (
        said.stdout.decode("utf-8", "replace").strip().splitlines()[0] if said.stdout.strip() else "unknown"
    )


def core_version(path: Path) -> str:
    """The core's own name and version, asked in a child: a library is never loaded into this process.
    Raises OSError where it is no core."""
    said = subprocess.run(
        child_command("core_child", path, Path()),
        env=child_environment(),
        input=b"",
        capture_output=True,
        timeout=20,
        check=False,
    )
    if len(said.stdout) < messages.LENGTH_BYTES:
        raise OSError(f"{path} ended the process that loaded it (exit status {said.returncode})")
    hello = messages.unpack(said.stdout)
    if hello["error"]:
        raise OSError(hello["error"])
    return str(hello["core"])


def child_command(module: ChildModule, tool: Path, folder: Path) -> list[str]:
    """The argument vector of an execution child that works in `folder`."""
    return [sys.executable, "-S", "-m", f"backend.execution.{module}", str(tool), str(folder)]


def child_environment() -> dict[str, str]:
    """All that the execution child is given: no key and no secret of ours is in it."""
    return {"PYTHONPATH": str(_PACKAGES), "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"}
