"""Deletes one instruction at a time from each reference and alternate of the executed items: what is still right
survives, and shows a hole in the item or a needless instruction.

`python -m tests.evaluation_items.mutations [asm] [rom_hack] [--item ID]` runs all of them and lists the survivors that
`explained_survivors.toml` does not explain; its exit status is 1 where there are any.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from backend.evaluation.benchmarks import BenchmarkItem, read_benchmark
from backend.evaluation.scoring import score_answer
from backend.execution.pool import Execution, open_execution
from backend.execution.tools import find_tools
from backend.settings.models import Tools

BENCHMARKS = Path(__file__).parents[2] / "config" / "benchmarks"
EXPLAINED = Path(__file__).with_name("explained_survivors.toml")
_INSTRUCTION = re.compile(r"\s+[a-zA-Z]{3}\b")


@dataclass(frozen=True, slots=True)
class Mutant:
    """An item's answer (0: the reference) without one line, counted from 1 within its code block."""

    item: BenchmarkItem
    answer: int
    line: int
    instruction: str
    text: str

    @property
    def key(self) -> tuple[str, int, int, str]:
        return self.item.id, self.answer, self.line, self.instruction


def mutants_of(item: BenchmarkItem) -> Iterator[Mutant]:
    """Every answer of the item that is said to be right, without one of its instructions."""
    for number, answer in enumerate(item.references):
        lines = answer.splitlines()
        for place, line in enumerate(lines):
            if _INSTRUCTION.match(line):
                yield Mutant(item, number, place, line.strip(), "\n".join(lines[:place] + lines[place + 1 :]))


def executed_items(names: Iterable[str]) -> list[BenchmarkItem]:
    """The items of the named benchmarks that run an answer's code."""
    return [
        item
        for name in names
        for item in read_benchmark(BENCHMARKS / f"{name}_benchmark.jsonl").items
        if item.mode in ("routine", "patch")
    ]


async def survivors(execution: Execution, mutants: Iterable[Mutant]) -> list[Mutant]:
    """Those of the mutants that are judged right."""

    async def survives(mutant: Mutant) -> bool:
        outcome, detail = await score_answer(execution, mutant.item, mutant.text)
        assert outcome != "not_run", detail
        return outcome == "correct"

    mutants = list(mutants)
    async with asyncio.TaskGroup() as group:
        judged = [group.create_task(survives(mutant)) for mutant in mutants]
    return [mutant for mutant, task in zip(mutants, judged, strict=True) if task.result()]


def explained() -> dict[tuple[str, int, int, str], str]:
    """{(item, answer, line, instruction): why it may be missing without harm}."""
    listed = tomllib.loads(EXPLAINED.read_text("utf-8"))["survivor"]
    return {(one["item"], one["answer"], one["line"], one["instruction"]): one["reason"] for one in listed}


async def _main(names: list[str], only: str | None) -> int:
    items = [item for item in executed_items(names) if only in (None, item.id)]
    mutants = [mutant for item in items for mutant in mutants_of(item)]
    began = time.monotonic()
    async with open_execution(find_tools(Tools())) as execution:
        found = await survivors(execution, mutants)
    reasons = explained()
    new = [mutant for mutant in found if mutant.key not in reasons]
    gone = set(reasons) - {mutant.key for mutant in found}
    stale = [key for key in gone if any(mutant.key[:2] == key[:2] for mutant in mutants)]
    for mutant in new:
        print(f"survives: {mutant.key}\n{mutant.text}\n")
    for key in stale:
        print(f"explained, but it does not survive: {key}")
    print(
        f"{len(items)} items, {len(mutants)} mutants, {len(found)} survivors, {len(found) - len(new)} of them "
        f"explained, {time.monotonic() - began:.0f} s"
    )
    return 1 if new or stale else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("benchmarks", nargs="*", default=["asm"])
    parser.add_argument("--item")
    given = parser.parse_args()
    sys.exit(asyncio.run(_main(given.benchmarks, given.item)))
