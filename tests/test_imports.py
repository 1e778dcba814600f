"""The walls of the house: which floor may import which, and what each front really loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRAINING = ("torch", "transformers", "peft", "trl", "datasets", "accelerate", "bitsandbytes", "safetensors")
SDKS = ("google.genai", "anthropic", "ollama")
STORAGE = ("aiosqlite", "pydantic", "tomlkit")
FRONTS = [
    (
        "hafs_tui.cli",
        ("textual", "rich", "backend", "remote", "asyncssh", "scipy", *TRAINING, *SDKS, *STORAGE),
    ),
    ("hafs_tui.run", ("scipy", *TRAINING, *SDKS, "backend.worker", "asyncssh", "hafs_tui.cli")),
    ("remote", ("backend", "hafs_tui", "textual", "asyncssh", *TRAINING, *STORAGE)),
    ("backend.settings", ("hafs_tui", "textual", "click", "remote", *TRAINING, *SDKS)),
    ("backend.hosts.jobs", ("hafs_tui", "textual", "click", "backend.worker", *TRAINING, *SDKS)),
    ("backend.generation.engine", ("hafs_tui", "textual", "click", *TRAINING, *SDKS)),
]


def loaded_by(statement: str, python: tuple[str, ...] = (), **environment: str) -> set[str]:
    """The modules that a new interpreter holds after a statement."""
    done = subprocess.run(
        [sys.executable, *python, "-c", f"import json, sys\n{statement}\nprint(json.dumps(list(sys.modules)))"],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return set(json.loads(done.stdout))


def test_the_arrows_only_point_down() -> None:
    """The contracts of pyproject.toml: layers, the backend that never draws, the worker that travels alone."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert " 0 broken" in done.stdout


@pytest.mark.parametrize(("front", "walls"), FRONTS, ids=[front for front, _ in FRONTS])
def test_a_front_loads_only_what_it_needs(front: str, walls: tuple[str, ...]) -> None:
    loaded = loaded_by(f"import {front}")
    assert front in loaded
    assert [wall for wall in walls if wall in loaded] == []


def test_a_worker_needs_nothing_of_ours_but_its_bundle(tmp_path: Path) -> None:
    """What is sent to a host: imported from the archive alone, it loads the standard library and itself, and
    the training libraries only when a job begins."""
    made = (
        "from pathlib import Path; from backend.contract.bundle import build_bundle; "
        f"build_bundle(Path({str(tmp_path)!r}))"
    )
    loaded_by(made)
    (bundle,) = tmp_path.iterdir()
    workers = ("sft", "dpo", "evaluate", "merge", "convert", "prepare_base")
    imports = f"sys.path.insert(0, {str(bundle)!r}); " + "; ".join(
        f"import backend.worker.{name}" for name in workers
    )
    loaded = loaded_by(imports, python=("-P", "-S"))
    assert {f"backend.worker.{name}" for name in workers} <= loaded
    foreign = (
        {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names) - {"__main__", "backend"}
    )
    assert foreign == set()
    ours = {name for name in loaded if name.count(".") == 1 and name.startswith("backend.")}
    assert ours == {"backend.worker", "backend.contract"}


def test_the_agent_runs_with_the_standard_library_alone() -> None:
    loaded = loaded_by(
        "import runpy; runpy.run_path('remote/agent.py', run_name='agent')", python=("-I", "-S")
    )
    assert {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names) == {"__main__"}
