"""The outcome of one answer to one item: by text, or by executing it."""

from __future__ import annotations

from backend.evaluation.benchmarks import BenchmarkItem, Outcome, score_text
from backend.execution.expectations import can_fail
from backend.execution.items import Task, judge_answer
from backend.execution.pool import Execution


async def score_answer(execution: Execution, item: BenchmarkItem, answer: str) -> tuple[Outcome, str]:
    """The outcome and what it rests on; the latter may hold words of asar or of the answer, raw."""
    task = task_of(item)
    if task is None:
        return score_text(item, answer)
    if not can_fail(task.expect, task.mode):
        return "not_run", "not run: the item's 'expect' asks nothing of an answer"
    executed = await judge_answer(execution, task, answer)
    share = (
        f" ({executed.cases_right} of {executed.cases} cases)"
        if executed.cases > 1 and executed.assembled
        else ""
    )
    warned = f"; asar warns: {executed.warnings[0]}" if executed.warnings else ""
    return executed.outcome, executed.detail + share + warned


def task_of(item: BenchmarkItem) -> Task | None:
    """What an answer to the item is executed in; None for an item that is compared as text."""
    if item.mode == "text" or item.setup is None or item.wanted is None:
        return None
    return Task(item.mode, item.setup, item.wanted, item.label, item.files)
