"""Copying to and from a host against scp, over a real sshd on loopback, in one run."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from remote import HostConfig, open_host
from tests.servers.sshd import Sshd

BIG_MIB = int(os.environ.get("HAFS_BENCH_MIB", "1024"))
SMALL_FILES = int(os.environ.get("HAFS_BENCH_FILES", "5000"))


async def took(work: Callable[[], Awaitable[object]]) -> float:
    before = time.perf_counter()
    await work()
    return time.perf_counter() - before


async def run() -> AsyncIterator[str]:
    with tempfile.TemporaryDirectory() as name, Sshd.start(Path(name) / "sshd") as sshd:
        folder = Path(name)
        await asyncio.to_thread(_make, folder)
        config = HostConfig(
            "loop", "ssh", "127.0.0.1", sshd.port, sshd.user, sshd.user_key, root=str(folder / "root"),
            python=sys.executable, known_hosts=sshd.known_hosts,
        )  # fmt: skip
        host = open_host(config)
        await host.probe()
        try:
            put = await took(lambda: host.put(folder / "big", "big"))
            get = await took(lambda: host.get("big", folder / "back"))
            scp = await _scp(sshd, folder / "big", folder / "scp-big")
            yield f"one file of {BIG_MIB} MiB: put {put:.1f} s, get {get:.1f} s, scp {scp:.1f} s"
            yield f"  put {scp / put:.2f} of scp, get {scp / get:.2f} of scp (bar 0.9)"
            small = await took(lambda: host.put(folder / "small", "small"))
            back = await took(lambda: host.get("small", folder / "small-back"))
            again = await took(lambda: host.put(folder / "small", "small"))
            scp = await _scp(sshd, folder / "small", folder / "scp-small")
            yield f"{SMALL_FILES} files of 2 KiB: put {small:.1f} s, get {back:.1f} s, scp -r {scp:.1f} s"
            yield f"  put again, when all is there: {again:.1f} s"
            yield f"  put {scp / small:.2f} of scp -r, get {scp / back:.2f} of scp -r (bar 1)"
        finally:
            await host.aclose()


def _make(folder: Path) -> None:
    block = os.urandom(1024 * 1024)
    with (folder / "big").open("wb") as file:
        for number in range(BIG_MIB):
            file.write(number.to_bytes(8, "big") + block[8:])
    for number in range(SMALL_FILES):
        path = folder / "small" / f"{number % 50}" / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(number.to_bytes(8, "big") * 256)


async def _scp(sshd: Sshd, source: Path, target: Path) -> float:
    scp = shutil.which("scp") or "scp"
    argv = (
        scp, "-q", "-r", "-P", str(sshd.port), "-i", str(sshd.user_key), "-o", f"UserKnownHostsFile={sshd.known_hosts}",
        str(source), f"{sshd.user}@127.0.0.1:{target}",
    )  # fmt: skip

    async def copy() -> None:
        process = await asyncio.create_subprocess_exec(*argv)
        assert await process.wait() == 0

    return await took(copy)
