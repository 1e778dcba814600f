"""Judges answers that are there already, `{id, output}` a line: no model is asked and nothing is stored."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from backend.datasets.formats import read_records
from backend.datasets.rows import BadRow
from backend.evaluation.benchmarks import BenchmarkError, BenchmarkItem, Outcome, read_benchmark, score_of
from backend.evaluation.scoring import score_answer
from backend.execution.pool import Execution, open_execution
from backend.execution.tools import Tools


@dataclass(frozen=True, slots=True)
class JudgedAnswer:
    """One answer's outcome; `detail` may hold words of asar or of the answer, raw."""

    id: str
    line: int
    outcome: Outcome
    score: float | None
    detail: str


@dataclass(frozen=True, slots=True)
class JudgedFile:
    """The outcomes in the order of the answers; `unanswered` are items without one, `problems` lines of either
    file that are no item or no answer."""

    benchmark: str
    items: int
    answers: tuple[JudgedAnswer, ...]
    unanswered: tuple[str, ...]
    problems: tuple[BadRow, ...]

    def count(self, outcome: Outcome) -> int:
        return sum(answer.outcome == outcome for answer in self.answers)


async def judge_file(benchmark_file: Path, answers_file: Path, tools: Tools) -> JudgedFile:
    """Judge the answers of a file by the items of another. Several answers to one item are judged each.

    Raises OSError, and BenchmarkError where a file has no item or no answer.
    """
    benchmark = await asyncio.to_thread(read_benchmark, benchmark_file)
    items = {item.id: item for item in benchmark.items}
    answers, problems = await asyncio.to_thread(_read_answers, answers_file, items)
    if not answers:
        first = f"; line {problems[0].line}: {problems[0].reason}" if problems else ": the file is empty"
        raise BenchmarkError(f"{answers_file} holds no answer to an item of {benchmark_file}{first}")
    async with open_execution(tools) as execution, asyncio.TaskGroup() as group:
        judged = [
            group.create_task(_judge(execution, items[item_id], line, text))
            for line, item_id, text in answers
        ]
    answered = {item_id for _, item_id, _ in answers}
    return JudgedFile(
        benchmark=benchmark.name,
        items=len(items),
        answers=tuple(task.result() for task in judged),
        unanswered=tuple(item_id for item_id in items if item_id not in answered),
        problems=(*benchmark.problems, *problems),
    )


async def _judge(execution: Execution, item: BenchmarkItem, line: int, text: str) -> JudgedAnswer:
    outcome, detail = await score_answer(execution, item, text)
    return JudgedAnswer(item.id, line, outcome, score_of(outcome), detail)


def _read_answers(
    path: Path, items: dict[str, BenchmarkItem]
) -> tuple[list[tuple[int, str, str]], list[BadRow]]:
    """[(line, id of an item, answer)], and the lines that are none."""
    answers, problems = [], []
    for record in read_records(path):
        if isinstance(record, BadRow):
            problems.append(record)
            continue
        line, raw, fields = record
        item_id, text = fields.get("id"), fields.get("output")
        if not isinstance(item_id, str) or not isinstance(text, str):
            problems.append(BadRow(line, "an answer is {id, output}, both text", raw))
        elif item_id not in items:
            problems.append(BadRow(line, f"the benchmark has no item {item_id!r}", raw))
        else:
            answers.append((line, item_id, text))
    return answers, problems
