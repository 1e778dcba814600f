"""The command line on a workspace of its own, against an OpenAI-compatible server over real HTTP."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hafs_tui.cli import cli
from tests.fixtures.words_domain import repeat, write_domain
from tests.servers.hosts import sshd
from tests.servers.openai_server import OpenAIServer

__all__ = ["CAMPAIGN", "Cli", "Done", "hafs", "house", "openai", "prepare", "sshd", "until"]

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document of standard output; more or other text there fails."""
        return json.loads(self.out)


@dataclass
class Cli:
    """Runs commands on the workspace `home`: called, in this process; `process` and `start`, in their own."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, *argv: str, code: int = 0, stdin: str | None = None) -> Done:
        ran = CliRunner().invoke(
            cli, ["--home", str(self.home), *argv], input=stdin, env=self.environment, prog_name="hafs-tui"
        )
        done = Done(ran.exit_code, ran.stdout, ran.stderr)
        assert done.code == code, f"{argv}: {done}"
        return done

    def json(self, *argv: str, code: int = 0) -> Any:
        """The document of a command, run with --json."""
        return self("--json", *argv, code=code).document

    def start(self, *argv: str, **options: Any) -> subprocess.Popen[str]:
        """The real program, not waited for."""
        return subprocess.Popen(
            [sys.executable, "-m", "hafs_tui", "--home", str(self.home), *argv],
            cwd=ROOT,
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def process(self, *argv: str, code: int = 0, seconds: float = 90, **options: Any) -> Done:
        """The real program, to its end."""
        with self.start(*argv, **options) as process:
            try:
                out, err = process.communicate(timeout=seconds)
            finally:
                process.kill()
        done = Done(process.returncode, out, err)
        assert done.code == code, f"{argv}: {done}"
        return done


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until `condition()` holds; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


TALK = itertools.cycle(("LDA #$12 : STA $7E0010", "the word is unknown", "no idea at all", "JSR Wait"))


def answer(prompt: str) -> str:
    """Repeats words as told, says something else each time to a sample's instruction, and else one instruction."""
    if prompt.startswith("Repeat: "):
        return repeat(prompt)
    return next(TALK) if prompt.startswith("Repeat the word") else "SEP #$20"


@pytest.fixture(scope="session")
def openai() -> Iterator[OpenAIServer]:
    """The provider of the tests' campaigns, on a thread of its own."""
    server = OpenAIServer(reply=answer)
    started, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with server:
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(30)
    yield server
    loop.call_soon_threadsafe(stop.set)
    thread.join(30)
    loop.close()


def prepare(home: Path, openai: OpenAIServer, **domain: Any) -> Cli:
    """A workspace with the domain "words" and the server as its provider."""
    write_domain(home, **domain)
    (home / "config" / "settings.toml").write_text(f'[providers.openai]\nbase_url = "{openai.base_url}"\n')
    return Cli(home)


@pytest.fixture
def hafs(tmp_path: Path, openai: OpenAIServer) -> Cli:
    """The command line on a new workspace."""
    return prepare(tmp_path / "home", openai)


CAMPAIGN = ("--provider", "openai", "--model", "test-model", "--domains", "words")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, openai: OpenAIServer) -> Cli:
    """The command line on a workspace in which a module's tests live together: the campaign "pilot" is done,
    its samples 1 to 10 of 12 are approved."""
    hafs = prepare(tmp_path_factory.mktemp("house") / "home", openai)
    hafs("campaign", "create", "pilot", "--target", "12", *CAMPAIGN)
    hafs("campaign", "run", "pilot")
    hafs("samples", "approve", *map(str, range(1, 11)))
    return hafs
