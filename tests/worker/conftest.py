"""Fixtures of the worker's tests: a small model, datasets, and a way to run a worker and read its events."""

from __future__ import annotations

import importlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from backend.contract.events import Failed, Metrics, Record, Started, parse
from tests.fixtures.small_model import small_adapter, small_model

__all__ = ["small_adapter", "small_model"]

E = TypeVar("E")

MNEMONICS = ["lda", "sta", "ldx", "stx", "ldy", "adc", "sbc", "jmp", "jsr", "rts", "rep", "sep"]
REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ran:
    """A worker's end: exit code and everything that it told."""

    code: int
    records: tuple[Record, ...]

    def of(self, kind: type[E]) -> list[E]:
        return [record.event for record in self.records if isinstance(record.event, kind)]

    @property
    def failed(self) -> Failed:
        return self.of(Failed)[-1]

    @property
    def started(self) -> Started:
        return self.of(Started)[-1]

    @property
    def losses(self) -> dict[int, float]:
        return {told.step: told.loss for told in self.of(Metrics) if told.loss is not None}


def told(events: Path) -> tuple[Record, ...]:
    """The events of a file, whose numbers must have no gap and no repetition."""
    parsed = parse(events.read_bytes())
    assert parsed.malformed == ()
    assert [record.seq for record in parsed.records] == list(range(1, len(parsed.records) + 1))
    return parsed.records


Run = Callable[..., Ran]


@pytest.fixture
def worker(tmp_path: Path) -> Run:
    """Runs a worker in this process: `worker("sft", base_model=..., events="a.jsonl", ...)`."""

    def call(kind: str, events: str = "events.jsonl", flags: Sequence[str] = (), **parameters: Any) -> Ran:
        file = tmp_path / events
        file.unlink(missing_ok=True)
        main = importlib.import_module(f"backend.worker.{kind}").main
        code = main(["--events", str(file), *flags, *as_flags(parameters)])
        return Ran(code, told(file))

    return call


def as_flags(parameters: dict[str, Any]) -> list[str]:
    flags: list[str] = []
    for name, value in parameters.items():
        flags += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return flags


def start_worker(kind: str, events: Path, **parameters: Any) -> subprocess.Popen[str]:
    """A worker in a process of its own, as a host runs it."""
    return subprocess.Popen(
        [sys.executable, "-m", f"backend.worker.{kind}", *as_flags(parameters)],
        env={**os.environ, "HAFS_EVENTS": str(events), "PYTHONPATH": str(REPOSITORY)},
        cwd=events.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def reversal(words: list[str]) -> dict[str, str]:
    return {"instruction": "Reverse.", "input": " ".join(words), "output": " ".join(reversed(words))}


def reversals(count: int, seed: int) -> list[dict[str, str]]:
    """Rows whose answer is the input's words in reverse."""
    chance = random.Random(seed)
    return [reversal(chance.sample(MNEMONICS, 3)) for _ in range(count)]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A dataset's folder: 32 rows to train on, 8 held out."""
    write_rows(tmp_path / "data" / "train.jsonl", reversals(32, seed=1))
    write_rows(tmp_path / "data" / "val.jsonl", reversals(8, seed=2))
    return tmp_path / "data"


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Preference pairs, as many as a batch, so that each step sees them all: the reversed words are chosen,
    the words as they were are rejected."""
    rows = [
        {
            "prompt": f"{row['instruction']}\n\n{row['input']}",
            "chosen": row["output"],
            "rejected": row["input"],
        }
        for row in reversals(4, seed=3)
    ]
    return write_rows(tmp_path / "pairs.jsonl", rows)


@pytest.fixture
def items(tmp_path: Path) -> Path:
    """A benchmark of ten items, with prompts of different lengths."""
    chance = random.Random(4)
    rows = [
        {"id": f"item-{number}", "family": "reverse", "category": "words"}
        | reversal(chance.sample(MNEMONICS, 2 + number % 4))
        for number in range(10)
    ]
    return write_rows(tmp_path / "reverse.jsonl", rows)
