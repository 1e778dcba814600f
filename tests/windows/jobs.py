"""The agent under a real Windows Python: jobs, their tree, the queue and files."""

from __future__ import annotations

import asyncio
from pathlib import Path

from remote import Host, Launch
from tests.servers.tcp_proxy import TcpProxy
from tests.servers.windows_host import WindowsHost

PYTHON = "D:\\python\\python.exe"


def python(code: str) -> tuple[str, ...]:
    return (PYTHON, "-X", "utf8", "-c", code)


async def text_of(host: Host, job_id: str) -> str:
    return b"".join([chunk.data async for chunk in host.follow(job_id, "stdout")]).decode()


async def test_probe_knows_windows(host: Host) -> None:
    probe = await host.probe()
    assert probe.os == "windows"
    assert probe.python.lower() == PYTHON.lower()
    assert probe.root.lower().startswith("d:\\")
    assert probe.memory_bytes
    assert probe.disk_free_bytes > 0


async def test_a_job_runs_with_its_environment(host: Host) -> None:
    code = "import os, sys; print(os.environ['GREETING']); print('err', file=sys.stderr); sys.exit(3)"
    await host.launch(Launch("first", python(code), env={"GREETING": "grüß"}))
    ended = await host.wait("first")
    assert (ended.state, ended.exit_code) == ("failed", 3)
    assert (await text_of(host, "first")).replace("\r\n", "\n") == "grüß\nerr\n"
    started = await host.read(f"{ended.job_dir}/start.json")
    assert b"start_by_" in started or b"start_beside" in started


async def test_lines_arrive_once_through_cuts(host: Host, proxy: TcpProxy) -> None:
    await host.launch(
        Launch("lines", python("import time\nfor i in range(2000):\n    print(i)\n    time.sleep(0.001)"))
    )
    got, cuts = b"", 0
    async for chunk in host.follow("lines", "stdout"):
        got += chunk.data
        if cuts < 2 and got.count(b"\n") > 500 * (cuts + 1):
            cuts += 1
            proxy.cut()
    assert cuts == 2
    assert got.split() == [b"%d" % i for i in range(2000)]


CHILDREN = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, '-c', "import time\\nwhile 1: open('alive', 'a').write('x'); time.sleep(.1)"])
while not os.path.exists(os.environ['HAFS_STOP_FILE']):
    time.sleep(0.05)
print('asked', flush=True)
time.sleep(600)
"""


async def test_cancel_asks_by_the_stop_file_and_ends_the_tree(host: Host, windows: WindowsHost) -> None:
    job = await host.launch(Launch("tree", python(CHILDREN)))
    alive = Path(str(windows.drive) + job.job_dir[2:].replace("\\", "/"), "alive")
    async with asyncio.timeout(30):
        while not alive.exists():
            await asyncio.sleep(0.05)
    await host.cancel("tree", grace_s=2.0)
    ended = await host.wait("tree")
    assert ended.state == "cancelled"
    assert "asked" in await text_of(host, "tree")
    size = alive.stat().st_size
    await asyncio.sleep(0.5)
    assert alive.stat().st_size == size, "a child of the job goes on"


async def test_the_next_job_starts_by_itself(host: Host) -> None:
    for name in ("a", "b", "c"):
        await host.launch(Launch(name, python("import time; time.sleep(0.5)")))
    assert (await host.wait("c")).state == "done"


async def test_files_come_and_go(host: Host, tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b"line\n" * 100_000)
    sent = await host.put(source, "data/rows.jsonl")
    got = await host.get("data/rows.jsonl", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    assert sent.sha256 == got.sha256
    assert (await host.put(source, "data/rows.jsonl")).moved == 0
