"""Tests on the stand-in for a Windows host: `make windows`. They need wine, and a Windows CPython in the folder that
HAFS_WINDOWS_PYTHON names; so their files are not named test_*, and `make test` has none of them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from remote import Host, HostConfig, open_host
from tests.servers.sshd import make_key
from tests.servers.tcp_proxy import TcpProxy
from tests.servers.windows_host import WindowsHost


@pytest.fixture(scope="session")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WindowsHost]:
    made = WindowsHost(tmp_path_factory.mktemp("windows"), Path(os.environ["HAFS_WINDOWS_PYTHON"]))
    made.prepare()
    yield made
    made.end()


@pytest.fixture
async def proxy(windows: WindowsHost, tmp_path: Path) -> AsyncIterator[TcpProxy]:
    host_key, user_key = make_key(tmp_path / "host_key"), make_key(tmp_path / "user_key")
    async with await windows.serve(host_key, user_key), TcpProxy(windows.port) as between:
        kind, key = host_key.with_suffix(".pub").read_text().split()[:2]
        (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{between.port} {kind} {key}\n")
        yield between


@pytest.fixture
async def host(proxy: TcpProxy, tmp_path: Path) -> AsyncIterator[Host]:
    empty = tmp_path / "ssh_config"
    empty.write_text("")
    opened = open_host(
        HostConfig(
            "box", "ssh", address="127.0.0.1", port=proxy.port, user="me", key=tmp_path / "user_key",
            root=f"D:/{tmp_path.name}", python="D:\\python\\python.exe", known_hosts=tmp_path / "known_hosts",
            ssh_config=empty, slots=2,
        )
    )  # fmt: skip
    yield opened
    for job in await opened.jobs():
        await opened.cancel(job.job_id, grace_s=0.0)
    await opened.aclose()
