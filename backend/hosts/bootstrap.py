"""Brings the training libraries to a host: a virtual environment under its root, for the card that is there.

It runs as a job, so a broken link does not break it off. At the end the host's `python` in hosts.toml is that
environment's, after its torch was asked to use the card.
"""

from __future__ import annotations

import asyncio
import codecs
import importlib.metadata
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from backend.hosts.catalog import add_host, host_settings, open_named_host
from backend.hosts.jobs import follow_job
from backend.hosts.launching import launch_command
from backend.settings import Workspace
from remote import HostError, Probe

NEEDS_GIB = 10
_SCRIPT = Path(__file__).with_name("training_set.py")
OnLine = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """`python` has the training set; `cuda` is what its torch was built for (None: no CUDA), `cards` what it sees."""

    host: str
    job_id: str
    python: str
    torch: str
    cuda: str | None
    cards: tuple[str, ...]


async def bootstrap_host(
    ws: Workspace,
    name: str,
    on_line: OnLine,
    *,
    index_url: str | None = None,
    torch: str | None = None,
    library_index: str | None = None,
) -> Bootstrapped:
    """Install the training set on a host, and prove it. `on_line` hears each step and each line of pip.

    index_url: where torch comes from; torch: what is asked for ("torch==2.13.0"); library_index: where all
    else comes from. A torch built for CUDA that the host's Python has is used and never replaced. Raises
    SettingsError, HostError.
    """
    settings = host_settings(ws, name)
    async with open_named_host(ws, name) as host:
        probe = await host.probe()
        refuse(probe, index_url)
        wanted = {
            "venv": f"{probe.root}/venv",
            "torch": torch or requirement("torch"),
            "torch_given": torch is not None,
            "index_url": index_url,
            "library_index": library_index,
            "libraries": libraries(),
            "needs_cuda": bool(probe.gpus),
        }
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "training_set.json"
            await asyncio.to_thread(file.write_text, json.dumps(wanted), "utf-8")
            await host.put(file, "training_set.json")
            await host.put(_SCRIPT, "training_set.py")
        argv = (probe.python, f"{probe.root}/training_set.py", f"{probe.root}/training_set.json")
        job = await launch_command(ws, name, argv, kind="bootstrap", now=True)
    lines = _Lines(on_line)
    ended = await follow_job(ws, job.id, lines.feed)
    result = next((line for line in reversed(lines.heard) if line.startswith("result: ")), None)
    if ended.state != "done" or result is None:
        raise HostError(
            name,
            "bootstrap",
            ended.error or f"it is {ended.state}",
            f"All it said: hafs-tui job follow {job.id}",
        )
    told = json.loads(result.removeprefix("result: "))
    if settings.python != told["python"]:
        await asyncio.to_thread(add_host, ws, name, settings.model_copy(update={"python": told["python"]}))
    return Bootstrapped(name, job.id, told["python"], told["torch"], told["cuda"], tuple(told["cards"]))


def refuse(probe: Probe, index_url: str | None) -> None:
    """Raises HostError for what could only fail after a long download."""
    if probe.disk_free_bytes < NEEDS_GIB * 2**30:
        free = probe.disk_free_bytes / 2**30
        raise HostError(
            probe.host, "bootstrap", f"{free:.1f} GiB are free under {probe.root}, about {NEEDS_GIB} are needed",
            "Free some space there, or choose another root folder for this host.",
        )  # fmt: skip
    if probe.os == "windows" and probe.gpus and index_url is None:
        raise HostError(
            probe.host, "bootstrap", f"on Windows the default torch has no CUDA, and there is {probe.gpus[0]}",
            "Give --index-url: the CUDA index that PyTorch's installation page names for Windows.",
        )  # fmt: skip


def libraries() -> list[str]:
    """The training set without torch, as this program's own metadata pins it."""
    return [text for text in _training_set() if not text.startswith("torch")]


def requirement(name: str) -> str:
    return next(text for text in _training_set() if text.startswith(name))


def _training_set() -> list[str]:
    parts = (text.partition(";") for text in importlib.metadata.requires("hafs-tui") or [])
    return [text.strip() for text, _, marker in parts if "extra == 'train'" in marker.replace('"', "'")]


class _Lines:
    """Bytes into whole lines."""

    def __init__(self, on_line: OnLine) -> None:
        self.heard: list[str] = []
        self._on_line = on_line
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + self._decoder.decode(data)).split("\n")
        for line in lines:
            self.heard.append(line)
            self._on_line(line.rstrip("\r"))
