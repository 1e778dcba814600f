"""What every test shares: no skips in CI, GPU tests counted aloud, a workspace, and thread counts that suit
two cores shared by parallel workers."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from backend.settings import Workspace, open_workspace

# Workers and jobs that the tests start inherit these. torch's default of spinning threads makes steps five
# times slower where the cores are shared.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
for _name in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "HAFS_HOME"):
    os.environ.pop(_name, None)
os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.null.Keyring"

# In CI the same examples every time: a change is to be judged by its own merit. Elsewhere new ones are tried.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("HAFS_FORBID_SKIPS") else "here")

_GPU_DESELECTED = pytest.StashKey[int]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests that need a card where there is none, and begin with the longest: the demo."""
    items.sort(key=lambda item: "tests/demo/" not in item.nodeid)
    if shutil.which("nvidia-smi"):
        return
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if gpu:
        config.hook.pytest_deselected(items=gpu)
        items[:] = [item for item in items if item not in gpu]
    config.stash[_GPU_DESELECTED] = len(gpu)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A parallel worker tells the process that prints how many it deselected."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["gpu_deselected"] = session.config.stash.get(_GPU_DESELECTED, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Every worker collects, and so deselects, the same tests: the count of one is the count."""
    count = getattr(node, "workeroutput", {}).get("gpu_deselected")
    if count is not None:
        node.config.stash[_GPU_DESELECTED] = count


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    count = config.stash.get(_GPU_DESELECTED, None)
    if count is not None:
        terminalreporter.write_line(f"{count} tests marked gpu were deselected: this machine has no card")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """In CI a test that skips has failed: what it would have shown was not seen."""
    report = yield
    if os.environ.get("HAFS_FORBID_SKIPS") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipping is forbidden here (HAFS_FORBID_SKIPS): {report.longrepr}"
    return report


@pytest.fixture
async def ws(tmp_path: Path) -> AsyncIterator[Workspace]:
    """An open workspace of its own."""
    async with open_workspace(tmp_path / "home") as workspace:
        yield workspace
