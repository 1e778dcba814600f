"""Every command explains itself with an example, and asking it costs no heavy import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Asks the help of the program, its groups and its commands in one process that imports nothing else.
ASK = """
import io, json, sys
from contextlib import redirect_stdout
import click
from hafs_tui.cli import cli

def ask(command, path):
    said = io.StringIO()
    with redirect_stdout(said):
        cli.main([*path, "--help"], prog_name="hafs-tui", standalone_mode=False)
    helps[" ".join(path)] = said.getvalue()
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            ask(command.get_command(context, name), [*path, name])

helps = {}
ask(cli, [])
json.dump({"helps": helps, "modules": sorted(sys.modules)}, sys.stdout)
"""
HEAVY = (
    *(
        "textual",
        "torch",
        "transformers",
        "numpy",
        "scipy",
        "sacrebleu",
        "datasketch",
        "pydantic",
        "asyncssh",
    ),
    *(
        "aiosqlite",
        "aiohttp",
        "httpx",
        "anthropic",
        "google.genai",
        "ollama",
        "keyring",
        "tomlkit",
        "xllamacpp",
    ),
)
CONTRACT = """
doctor backup prune lineage demo
campaign create|run|pause|resume|cancel|clone|retarget|priority|list|show|compare|rescore|export|decisions
samples list|show|search|approve|reject|edit|undo|import|export
dataset build|list|show|check|import|export
host add|list|probe|gpus|shell|put|get
job launch|list|show|follow|cancel
train sft|dpo|list|show|resume|metrics
eval run|compare|check|list|show
preferences generate|list|show|choose|import|export
deploy ollama|hf|gguf|status|stop|rollback|chat
models list|show
"""


@pytest.fixture(scope="module")
def asked() -> dict[str, dict[str, str]]:
    done = subprocess.run(
        [sys.executable, "-c", ASK], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    found: dict[str, dict[str, str]] = json.loads(done.stdout)
    return found


def test_every_command_of_the_contract_is_there(asked: dict[str, dict[str, str]]) -> None:
    wanted: set[str] = set()
    first, *groups = CONTRACT.strip().splitlines()
    wanted.update(first.split())
    for line in groups:
        group, commands = line.split()
        wanted.update(f"{group} {command}" for command in commands.split("|"))
    assert wanted <= set(asked["helps"])


def test_every_help_has_an_example_that_names_its_command(asked: dict[str, dict[str, str]]) -> None:
    for path, text in asked["helps"].items():
        _, found, example = text.rpartition("Example: ")
        assert found, f"hafs-tui {path} --help has no example"
        words = [word for word in example.split() if word != "--json"]
        assert words[: 1 + len(path.split())] == ["hafs-tui", *path.split()], path


def test_every_help_says_what_each_option_is_for(asked: dict[str, dict[str, str]]) -> None:
    for path, text in asked["helps"].items():
        _, _, options = text.partition("Options:\n")
        lines = options.partition("\n\n")[0].splitlines()
        for line, after in zip(lines, [*lines[1:], ""], strict=True):
            if line.startswith("  -"):
                explained = len(line.strip().split("  ")) > 1 or after.startswith("     ")
                assert explained, f"hafs-tui {path}: {line.strip()}"


def test_no_help_imports_anything_heavy(asked: dict[str, dict[str, str]]) -> None:
    assert [name for name in HEAVY if name in asked["modules"]] == []


def test_the_real_program_starts_without_heavy_imports() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "hafs_tui", "--help"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "click" in imported
    assert [name for name in HEAVY if name in imported] == []
