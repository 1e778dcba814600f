"""The hosts that a workspace knows: hosts.toml, how each is opened, and what it says about itself."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from backend.providers.keys import KEY_NAMES
from backend.settings import HostSettings, SettingsError, Workspace, load_hosts, save_host
from backend.settings import remove_host as remove_from_file
from remote import GpuDetail, Host, HostConfig, HostError, Probe, Slurm, open_host

TRAINING_LIBRARIES = ("torch", "transformers", "peft", "trl", "datasets", "accelerate")
# Wanted by some recipes only.
QUANTISATION = "bitsandbytes"
_ASK_VERSIONS = """
import importlib.metadata, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found[name] = None
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class HostReport:
    """What a host is, and the version of each training library that its Python has (None: not there)."""

    probe: Probe
    libraries: dict[str, str | None]
    gpus: tuple[GpuDetail, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """What every run needs and this host has not."""
        return tuple(name for name in TRAINING_LIBRARIES if self.libraries.get(name) is None)

    @property
    def remedy(self) -> str:
        """How to bring what is missing; empty where nothing is."""
        return self.bring(self.missing) if self.missing else ""

    def bring(self, libraries: Sequence[str]) -> str:
        """The command that installs libraries for the host's Python."""
        return (
            f"Name a Python that has them as `python` of this host, or install them for {self.probe.python}: "
            f"{self.probe.python} -m pip install {' '.join(libraries)}"
        )


def list_hosts(ws: Workspace) -> dict[str, HostSettings]:
    """Every host by name, "local" first. Raises SettingsError."""
    return load_hosts(ws.config)


def host_settings(ws: Workspace, name: str) -> HostSettings:
    """The settings of a host. Raises SettingsError that names the hosts there are."""
    hosts = list_hosts(ws)
    if name not in hosts:
        raise SettingsError(
            f"{ws.config / 'hosts.toml'}: no host named {name}; known: {', '.join(hosts)}. "
            f"Add it: hafs-tui host add {name} --address ADDRESS"
        )
    return hosts[name]


def add_host(ws: Workspace, name: str, settings: HostSettings) -> None:
    """Write a host into hosts.toml. Connects to nothing: `probe_host` does. Raises SettingsError."""
    if settings.kind == "ssh" and not settings.address:
        raise SettingsError(f"host {name}: an SSH host needs an address (--address)")
    save_host(ws.config, name, settings)


def remove_host(ws: Workspace, name: str) -> None:
    """Forget a host; what lies on it stays. Raises SettingsError."""
    remove_from_file(ws.config, name)


@asynccontextmanager
async def open_named_host(ws: Workspace, name: str, *, accept_new: bool = False) -> AsyncIterator[Host]:
    """The host for a block. Nothing is connected before the first question.

    `accept_new` adds the key of a host never seen to the workspace's known_hosts. Raises SettingsError for
    an unknown name; what is asked of the host raises HostError (HostKeyUnknown at a first contact).
    """
    host = open_host(host_config(ws, name, accept_new=accept_new))
    try:
        yield host
    finally:
        await host.aclose()


def host_config(ws: Workspace, name: str, *, accept_new: bool = False) -> HostConfig:
    """The named host as `remote` wants it. Raises SettingsError."""
    settings = host_settings(ws, name)
    slurm = Slurm(**settings.slurm.model_dump()) if settings.scheduler == "slurm" else None
    if settings.kind == "local":
        root = settings.root or str(ws.host_root)
        return HostConfig(
            name,
            "local",
            root=root,
            python=settings.python or "",
            withheld=KEY_NAMES,
            slots=settings.slots,
            min_free_bytes=int(settings.min_free_gib * 2**30),
            slurm=slurm,
        )
    return HostConfig(
        name,
        "ssh",
        address=settings.address or "",
        port=settings.port,
        user=settings.user,
        key=settings.key,
        root=settings.root or "~/.hafs",
        python=settings.python or "",
        known_hosts=ws.known_hosts,
        accept_new=accept_new,
        slots=settings.slots,
        min_free_bytes=int(settings.min_free_gib * 2**30),
        slurm=slurm,
    )


def shell_command(ws: Workspace, name: str) -> list[str]:
    """The argument vector of an interactive shell on a host. Raises SettingsError."""
    settings = host_settings(ws, name)
    if settings.kind == "local":
        return [os.environ.get("SHELL", "/bin/sh")]
    options = [
        "-o",
        f'UserKnownHostsFile="{ws.known_hosts}" "~/.ssh/known_hosts"',
        "-o",
        "StrictHostKeyChecking=yes",
    ]
    options += ["-p", str(settings.port)] if settings.port else []
    options += ["-l", settings.user] if settings.user else []
    options += ["-i", str(settings.key)] if settings.key else []
    return ["ssh", *options, "--", str(settings.address)]


async def probe_host(ws: Workspace, name: str, *, accept_new: bool = False) -> HostReport:
    """Ask a host what it is and which training libraries it has. Raises SettingsError or HostError."""
    async with open_named_host(ws, name, accept_new=accept_new) as host:
        return await report_of(host)


async def report_of(host: Host) -> HostReport:
    """The report of an open host. Raises HostError."""
    probe = await host.probe()
    asked = await host.run((probe.python, "-c", _ASK_VERSIONS, *TRAINING_LIBRARIES, QUANTISATION))
    if asked.exit_code != 0:
        words = asked.stderr.decode("utf-8", "replace").strip()[-500:]
        raise HostError(host.name, "ask for the training libraries", words, "Check this host's `python`.")
    libraries = json.loads(asked.stdout.decode().splitlines()[-1])
    return HostReport(probe, libraries, tuple(await host.gpu_details()) if probe.gpus else ())


def gpu_lines(report: HostReport) -> list[str]:
    """Each GPU for people: name, limits, what holds it back, and who uses it."""
    lines = [f"GPU {index}: {name}" for index, name in enumerate(report.probe.gpus)]
    for gpu in report.gpus:
        figures = [
            "" if gpu.power_limit_w is None else f"at most {gpu.power_limit_w:.0f} W",
            "" if gpu.clock_mhz is None else f"{gpu.clock_mhz:.0f} MHz",
            "" if gpu.fan_percent is None else f"fan {gpu.fan_percent:.0f} %",
            f"held back by {', '.join(gpu.throttled)}" if gpu.throttled else "",
            f"{gpu.ecc_errors:.0f} uncorrected ECC errors" if gpu.ecc_errors else "",
            f"split into {', '.join(gpu.mig)}" if gpu.mig else "",
        ]
        lines.append(f"GPU {gpu.index}: " + ", ".join(figure for figure in figures if figure))
        for process in gpu.processes:
            memory = "?" if process.memory_mib is None else f"{process.memory_mib:.0f}"
            lines.append(f"GPU {gpu.index}: process {process.pid} uses {memory} MiB: {process.name}")
    return lines
