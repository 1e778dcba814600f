"""Hosts for the tests: this machine directly, over a real sshd behind a proxy, and as a Slurm cluster behind one."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import psutil
import pytest

from remote import Host, HostConfig, Slurm, open_host
from tests.servers.slurm import SlurmCluster
from tests.servers.sshd import Sshd
from tests.servers.tcp_proxy import TcpProxy


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd.start(tmp_path_factory.mktemp("sshd") / "server") as server:
        yield server


@pytest.fixture
async def proxy(sshd: Sshd) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(sshd.port) as between:
        yield between


def ssh_config(sshd: Sshd, port: int, root: Path, known_hosts: Path) -> HostConfig:
    """Through `port`, whose key the file `known_hosts` is made to know."""
    known_hosts.write_text(sshd.known_line(port))
    empty = known_hosts.with_name("ssh_config")
    empty.write_text("")
    return HostConfig(
        name="loop",
        kind="ssh",
        address="127.0.0.1",
        port=port,
        user=sshd.user,
        key=sshd.user_key,
        root=str(root),
        python=sys.executable,
        known_hosts=known_hosts,
        ssh_config=empty,
        connect_timeout_s=5.0,
        slots=8,
    )


def agents() -> list[int]:
    """Agents that this test process started without SSH."""
    found = []
    for child in psutil.Process().children():
        if "serve" in child.cmdline()[-1:]:
            found.append(child.pid)
    return found


@dataclass
class Place:
    """A kind of host under test: how to open one, and how to break the link to it."""

    kind: str
    config: HostConfig
    cut: Callable[[], None]  # the link breaks; a new one can be made at once
    away: Callable[[], None]  # nothing comes through until `back`
    back: Callable[[], None]
    opened: list[Host] = field(default_factory=list)

    def open(self, slots: int | None = None) -> Host:
        host = open_host(self.config if slots is None else replace(self.config, slots=slots))
        self.opened.append(host)
        return host

    @property
    def root(self) -> Path:
        return Path(self.config.root)


def signal_agents(number: int) -> None:
    for pid in agents():
        os.kill(pid, number)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """The sshd of a login node, and Slurm behind it."""
    folder = tmp_path_factory.mktemp("slurm")
    with (
        SlurmCluster.start(folder / "cluster") as slurm,
        Sshd.start(folder / "sshd", SetEnv=f"SLURM_CONF={slurm.conf}") as login,
    ):
        yield login


@pytest.fixture(params=["local", "ssh"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    root = tmp_path / "root"
    if request.param == "local":
        config = HostConfig("here", root=str(root), slots=8)
        made = Place(
            "local",
            config,
            cut=partial(signal_agents, signal.SIGKILL),
            away=partial(signal_agents, signal.SIGSTOP),
            back=partial(signal_agents, signal.SIGCONT),
        )
        yield made
    else:
        sshd: Sshd = request.getfixturevalue("cluster" if request.param == "slurm" else "sshd")
        async with TcpProxy(sshd.port) as proxy:
            config = ssh_config(sshd, proxy.port, root, tmp_path / "known_hosts")
            if request.param == "slurm":
                config = replace(config, slurm=Slurm(gpus=0, time="30"))
            made = Place(request.param, config, proxy.cut, proxy.refuse, proxy.restore)
            yield made
            for host in made.opened:
                await host.aclose()
    for host in made.opened:
        await host.aclose()


@pytest.fixture
def host(place: Place) -> Host:
    return place.open()
