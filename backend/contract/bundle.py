"""Packs the worker for its journey: one zip, named by its content, that Python runs from PYTHONPATH."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

PACKAGES = ("contract", "worker")


def build_bundle(target_dir: Path) -> Path:
    """Writes `worker-<first 16 of its sha256>.zip` into the folder and returns its path.

    Holds `backend/__init__.py`, `backend/contract/` and `backend/worker/`, with fixed times and order, so
    the same sources give the same bytes and a host that has the name has the content.
    """
    root = resources.files("backend")
    members = {"backend/__init__.py": root.joinpath("__init__.py").read_bytes()}
    for package in PACKAGES:
        members |= _sources(root.joinpath(package), f"backend/{package}")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, date_time=(2020, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            archive.writestr(entry, members[name], zipfile.ZIP_DEFLATED, 9)
    content = buffer.getvalue()
    path = target_dir / f"worker-{hashlib.sha256(content).hexdigest()[:16]}.zip"
    if not path.exists():
        target_dir.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}.tmp")
        beside.write_bytes(content)
        beside.replace(path)
    return path


def _sources(folder: Traversable, prefix: str) -> dict[str, bytes]:
    """Every Python file below a package, by its name in the zip."""
    found: dict[str, bytes] = {}
    for entry in folder.iterdir():
        name = f"{prefix}/{entry.name}"
        if entry.is_dir() and entry.name != "__pycache__":
            found |= _sources(entry, name)
        elif entry.name.endswith(".py"):
            found[name] = entry.read_bytes()
    return found
