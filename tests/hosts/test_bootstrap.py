"""A host gets the training libraries: real venvs and a real pip, with packages of a few lines in an index of files."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from backend.hosts import bootstrap
from backend.hosts.bootstrap import bootstrap_host
from backend.hosts.catalog import add_host, host_settings, open_named_host
from backend.settings import Workspace
from remote import HostError
from tests.fixtures.workspace_hosts import Loop

TORCH = """
__version__ = {version!r}
class version:
    cuda = {cuda!r}
class cuda:
    @staticmethod
    def is_available(): return {sees}
    @staticmethod
    def device_count(): return 1
    @staticmethod
    def get_device_name(index): return "Card of the tests"
class ones:
    def __init__(self, *a, **k): pass
    def sum(self): return self
    def item(self): return 8
"""


def wheel(index: Path, name: str, version: str, code: str = "") -> None:
    """A wheel with one module, and its page in the index."""
    folder = index / name
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    file = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{name}.py", code or f"__version__ = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(
            f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n"
        )
    links = "".join(f'<a href="{one.as_uri()}">{one.name}</a>\n' for one in sorted(folder.glob("*.whl")))
    (folder / "index.html").write_text(f"<html><body>{links}</body></html>")


def torch(index: Path, version: str, cuda: str | None, sees: bool) -> None:
    wheel(index, "torch", version, TORCH.format(version=version, cuda=cuda, sees=sees))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Has the two libraries that stand for the training set, and a torch without CUDA."""
    made = tmp_path / "index"
    torch(made, "2.14.0", None, False)
    wheel(made, "trl", "1.16.0")
    wheel(made, "peft", "0.21.2")
    monkeypatch.setattr(bootstrap, "libraries", lambda: ["trl==1.16.0", "peft==0.21.2"])
    monkeypatch.setattr(bootstrap, "NEEDS_GIB", 0.001)
    return made


async def test_a_bare_host_gets_an_environment_of_its_own(
    ws: Workspace, loop_host: Loop, index: Path
) -> None:
    lines: list[str] = []
    done = await bootstrap_host(
        ws, "loop", lines.append, index_url=index.as_uri(), library_index=index.as_uri()
    )
    assert [line for line in lines if line.startswith("step:")]
    assert (done.torch, done.cuda, done.cards) == ("2.14.0", None, ())
    assert done.python == str(loop_host.root / "venv" / "bin" / "python")
    assert host_settings(ws, "loop").python == done.python
    async with open_named_host(ws, "loop") as host:
        asked = await host.run((done.python, "-c", "import trl, peft; print(trl.__version__)"))
    assert asked.stdout == b"1.16.0\n"
    again = await bootstrap_host(
        ws, "loop", lines.append, index_url=index.as_uri(), library_index=index.as_uri()
    )
    assert replace(again, job_id="") == replace(done, job_id="")


async def test_a_cuda_torch_is_never_replaced(
    ws: Workspace, loop_host: Loop, index: Path, tmp_path: Path
) -> None:
    """The Python of the host has an older torch, for CUDA, in a venv; the index has a newer one, without."""
    special = tmp_path / "special"
    torch(special, "2.13.0+cu126", "12.6", True)
    theirs = tmp_path / "theirs"
    await asyncio.to_thread(subprocess.run, [sys.executable, "-m", "venv", str(theirs)], check=True)
    python = theirs / "bin" / "python"
    install = [str(python), "-m", "pip", "-q", "install", "--index-url", special.as_uri(), "torch"]
    await asyncio.to_thread(subprocess.run, install, check=True)
    add_host(ws, "loop", host_settings(ws, "loop").model_copy(update={"python": str(python)}))
    lines: list[str] = []
    done = await bootstrap_host(
        ws, "loop", lines.append, index_url=index.as_uri(), library_index=index.as_uri()
    )
    assert any("keeping torch 2.13.0+cu126" in line for line in lines)
    assert (done.torch, done.cuda, done.cards) == ("2.13.0+cu126", "12.6", ("Card of the tests",))
    assert done.python == str(loop_host.root / "venv" / "bin" / "python")


async def test_a_failure_is_told_with_the_last_lines(ws: Workspace, loop_host: Loop, index: Path) -> None:
    with pytest.raises(HostError, match="no-such-torch"):
        await bootstrap_host(
            ws,
            "loop",
            lambda line: None,
            index_url=index.as_uri(),
            torch="no-such-torch",
            library_index=index.as_uri(),
        )
    assert host_settings(ws, "loop").python == sys.executable


async def test_what_could_only_fail_later_is_refused_before(ws: Workspace, loop_host: Loop) -> None:
    async with open_named_host(ws, "loop") as host:
        probe = await host.probe()
    windows = replace(probe, os="windows", gpus=("RTX",), disk_free_bytes=2**40)
    with pytest.raises(HostError, match="no CUDA") as refused:
        bootstrap.refuse(windows, None)
    assert "--index-url" in refused.value.remedy
    bootstrap.refuse(windows, "file:///index")
    with pytest.raises(HostError, match="are free"):
        bootstrap.refuse(replace(probe, disk_free_bytes=2**30), None)


def test_the_training_set_is_the_one_of_this_program() -> None:
    assert any(text.startswith("trl==") for text in bootstrap.libraries())
    assert bootstrap.requirement("torch").startswith("torch")
