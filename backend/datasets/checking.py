"""Checks a dataset version: is it still what was frozen, and does anything leak between its splits, or from a
benchmark into it?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from backend.datasets.building import hash_of_folder
from backend.datasets.catalog import find
from backend.datasets.errors import DatasetError
from backend.datasets.formats import read_rows
from backend.datasets.leaks import Leak, LeakIndex, Place
from backend.datasets.rows import Row
from backend.evaluation.benchmarks import benchmark_name, read_benchmark
from backend.settings import Workspace
from backend.similarity.exact import sample_text

SHOWN = 1000
# Each split is asked about what came before it, so every two splits are compared once.
_ORDER = ("test", "val", "train")


@dataclass(frozen=True, slots=True)
class CheckReport:
    """`leaks` holds the first thousand of `found`; `hash_matches` says that the files are what was frozen."""

    name: str
    version: int
    rows: int
    found: int
    leaks: tuple[Leak, ...]
    benchmarks: tuple[str, ...]
    hash_matches: bool

    @property
    def clean(self) -> bool:
        return self.found == 0 and self.hash_matches


async def check(ws: Workspace, ref: str, *, benchmarks: Sequence[Path] | None = None) -> CheckReport:
    """Check the version `NAME[@VERSION]` against itself and `benchmarks` (None: every one that the workspace
    or the program has). Runs in a thread: about a second for 3,000 rows. Raises DatasetError."""
    version = await find(ws, ref)
    files = benchmark_files(ws) if benchmarks is None else list(benchmarks)
    folder = Path(version.path)
    try:
        rows, found, leaks = await asyncio.to_thread(_scan, folder, files)
        matches = await asyncio.to_thread(hash_of_folder, folder) == version.content_hash
    except OSError as error:
        raise DatasetError(
            f"{error.filename}: {error.strerror}; restore it, or build the dataset again"
        ) from error
    names = tuple(benchmark_name(file) for file in files)
    return CheckReport(version.name, version.version, rows, found, tuple(leaks), names, matches)


def benchmark_files(ws: Workspace) -> list[Path]:
    """The packaged benchmarks and the workspace's own."""
    packaged = Path(str(resources.files("config") / "benchmarks"))
    return sorted([*packaged.glob("*_benchmark.jsonl"), *ws.benchmarks.glob("*_benchmark.jsonl")])


def _scan(folder: Path, benchmarks: Sequence[Path]) -> tuple[int, int, list[Leak]]:
    index = LeakIndex()
    for file in benchmarks:
        for item in read_benchmark(file).items:
            text = sample_text(item.instruction, item.input, item.output)
            index.add(Place(benchmark_name(file), item.line, item.prompt, text))
            if item.canary:
                index.add_canary(item.canary, benchmark_name(file))
    rows = found = 0
    leaks: list[Leak] = []
    for split in _ORDER:
        for place in _places(folder / f"{split}.jsonl", split):
            rows += 1
            for leak in index.leaks(place):
                found += 1
                if len(leaks) < SHOWN:
                    leaks.append(leak)
            if split != "train":
                index.add(place)
    return rows, found, leaks


def _places(file: Path, split: str) -> Iterator[Place]:
    for line, row in enumerate(read_rows(file), 1):
        if not isinstance(row, Row):
            raise DatasetError(f"{file}, line {row.line}: {row.reason}; build the dataset again")
        yield Place(split, line, row.prompt, sample_text(row.instruction, row.input, row.output))
