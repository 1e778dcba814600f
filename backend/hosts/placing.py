"""Brings models and data to the host that needs them, and says where they lie there.

What lies on the host stays where it is. What lies here is copied, verified by hash, and skipped when it is
there already; what lies on a third host comes by way of this machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from backend.hosts.catalog import open_named_host
from backend.registry.catalog import folder_name
from backend.registry.references import ModelReferenceError, ResolvedModel
from backend.settings import Workspace
from remote import Host, Probe

OnCopy = Callable[[str, int, int], None]
"""Called with (what, bytes done, bytes in all) while something is copied."""

_SIZE = """
import os, sys
place = os.path.expanduser(sys.argv[1])
if not os.path.exists(place):
    sys.exit(3)
files = [os.path.join(folder, name) for folder, _, names in os.walk(place) for name in names] or [place]
print(sum(os.path.getsize(file) for file in files))
"""


@dataclass(frozen=True, slots=True)
class PlacedModel:
    """Where a model lies for a job on one host: a path there, or `hub:...`. `base` is an adapter's base where
    it lies elsewhere than the adapter says, else empty."""

    location: str
    base: str = ""


async def place_model(
    ws: Workspace, host: Host, probe: Probe, model: ResolvedModel, on_copy: OnCopy | None = None
) -> PlacedModel:
    """Make a model's weights reachable on a host. Raises ModelReferenceError, HostError."""
    if not model.is_weights:
        raise ModelReferenceError(f"{model.reference} is no set of weights that a host could load")
    location = await _place(ws, host, probe, model.location, model.host, on_copy)
    if model.kind != "adapter" or not model.base:
        return PlacedModel(location)
    return PlacedModel(location, await _place(ws, host, probe, model.base, model.host, on_copy))


async def place_file(host: Host, file: Path, folder: str, name: str, on_copy: OnCopy | None = None) -> str:
    """Copy a file to `<root>/<folder>/<name>`; its absolute path there. Raises HostError, OSError."""
    return (await host.put(file, f"{folder}/{name}", _teller(name, on_copy))).path


async def place_folder(host: Host, source: Path, target: str, on_copy: OnCopy | None = None) -> str:
    """Copy a folder's files to `<root>/<target>`; its absolute path there. Raises HostError, OSError."""
    return (await host.put(source, target, _teller(source.name, on_copy))).path


async def fetch_file(ws: Workspace, host_name: str, path: str, on_copy: OnCopy | None = None) -> Path:
    """A file of a host, copied into the workspace's models unless it is there already.

    Raises SettingsError, HostError.
    """
    name = folder_name(path)
    here = ws.models / "fetched" / _unique(host_name, path) / name
    async with open_named_host(ws, host_name) as host:
        await host.get(path, here, _teller(name, on_copy))
    return here


async def _place(
    ws: Workspace, host: Host, probe: Probe, location: str, lies_on: str, on_copy: OnCopy | None
) -> str:
    if location.startswith("hub:") or lies_on == host.name:
        return location
    if not lies_on and await size_of(host, probe, location) is not None:
        return location
    here = _here(location)
    if lies_on and lies_on != "local":
        here = ws.models / "fetched" / _unique(lies_on, location)
        async with open_named_host(ws, lies_on) as source:
            await source.get(location, here, _teller(here.name, on_copy))
    if not here.is_dir():
        raise ModelReferenceError(
            f"{location} is a folder neither on host {host.name} nor here; correct the path, or name the model "
            "by hub:OWNER/NAME or run:NAME"
        )
    return await place_folder(host, here, f"models/{_unique(lies_on, location)}", on_copy)


async def size_of(host: Host, probe: Probe, path: str) -> int | None:
    """Bytes of a file, or of a folder's files, on a host; None where nothing is there. Raises HostError."""
    asked = await host.run((probe.python, "-c", _SIZE, path))
    return int(asked.stdout) if asked.exit_code == 0 else None


def _unique(host: str, path: str) -> str:
    """A folder's name that says what it is and never meets that of another place."""
    return f"{folder_name(path)}-{hashlib.sha256(f'{host}:{path}'.encode()).hexdigest()[:8]}"


def _here(path: str) -> Path:
    return Path(path).expanduser().absolute()


def _teller(what: str, on_copy: OnCopy | None) -> Callable[[int, int], None] | None:
    if on_copy is None:
        return None
    return lambda done, total: on_copy(what, done, total)
