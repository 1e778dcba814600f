"""`hafs-tui eval`: run, compare, check, list, show."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hafs_tui.cli.groups import Group
from hafs_tui.cli.support import EXIT_FAILED, Session, in_workspace, many, table

if TYPE_CHECKING:
    from backend.evaluation.checking import CheckReport
    from backend.settings import Workspace


@click.group(
    cls=Group,
    epilog="Example: hafs-tui eval compare --baseline hub:Qwen/Qwen2.5-Coder-14B-Instruct --finetuned run:pilot-sft",
)
def command() -> None:
    """Evaluate models and compare them."""


@command.command(
    epilog="Example: hafs-tui eval run --model run:pilot-sft --benchmarks opcodes --output results.json"
)
@click.option(
    "--model",
    required=True,
    help="run:NAME, path:..., hub:..., api:provider/model, gguf:..., deployment:NAME.",
)
@click.option(
    "--benchmarks",
    multiple=True,
    required=True,
    help="Names or files; may be given several times or split by commas.",
)
@click.argument("more", nargs=-1)
@click.option(
    "--heldout", type=click.Path(exists=True, path_type=Path), help="Held-out rows, for perplexity."
)
@click.option("--host", default="local", show_default=True, help="Where weights are run.")
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the results there as JSON."
)
@click.option("--max-new-tokens", default=64, show_default=True, help="Longest answer.")
@in_workspace
async def run(
    ws: Workspace, session: Session, model: str, benchmarks: tuple[str, ...], more: tuple[str, ...],
    heldout: Path | None, host: str, output: Path | None, max_new_tokens: int,
) -> None:  # fmt: skip
    """Answer benchmarks' items and score them; an interrupted run goes on where it was."""
    from backend.evaluation.running import evaluation_document, run_evaluation

    names = [part for given in (*benchmarks, *more) for part in given.split(",") if part]
    tell = session.progress()
    evaluation = await run_evaluation(
        ws, model, names, heldout=heldout, host=host, output=output, max_new_tokens=max_new_tokens,
        on_progress=lambda done, total: tell(f"{done}/{total} items"),
    )  # fmt: skip
    document = await evaluation_document(ws, evaluation.id)
    rows = [(b["name"], b["items"], b["passed"], b["score"], *b["interval"]) for b in document["benchmarks"]]
    text = table(("benchmark", "items", "passed", "score", "from", "to (95 %)"), rows)
    session.show(
        document,
        f"evaluation {evaluation.id} of {model}: {evaluation.state}\n{text}\n{_perplexity(document['perplexity'])}\n"
        f"written to {evaluation.output}",
    )
    if evaluation.state != "done":
        sys.exit(EXIT_FAILED)


def _perplexity(figures: dict[str, Any]) -> str:
    measured = {
        "words, rolling": "word_rolling",
        "bytes, rolling": "byte_rolling",
        "words, sliding": "word_stride",
    }
    parts = [f"{figures[key]:.4g} ({label})" for label, key in measured.items() if figures[key] is not None]
    return "perplexity: " + (", ".join(parts) or str(figures["reason"]))


@command.command(
    epilog="Example: hafs-tui eval compare --baseline path:./base --finetuned run:pilot-sft --report report.md"
)
@click.option("--baseline", required=True, help="A model that was evaluated, or an evaluation's id.")
@click.option("--finetuned", required=True, help="A model that was evaluated, or an evaluation's id.")
@click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), help="Write the report there as Markdown."
)
@in_workspace
async def compare(
    ws: Workspace, session: Session, baseline: str, finetuned: str, report: Path | None
) -> None:
    """Compare two models item by item: better, worse, or can't tell and how many items are missing."""
    from backend.evaluation.report import verdict_words
    from backend.evaluation.running import compare_models, comparison_document

    comparison, row = await compare_models(ws, baseline, finetuned, report)
    overall, counts = comparison.overall, comparison.counts
    lines = [
        f"{finetuned} against {baseline}: {verdict_words(overall)}",
        f"{many(overall.items, 'item')} answered by both: {counts.won} won, {counts.lost} lost, "
        f"{counts.both} passed by both, {counts.neither} by neither",
        *(f"note: {note}" for note in comparison.notes),
        f"report: {row.report}",
    ]
    session.show(comparison_document(comparison, row), "\n".join(lines))


@command.command(epilog="Example: hafs-tui eval check opcodes_benchmark.jsonl")
@click.argument("file")
@in_workspace
async def check(ws: Workspace, session: Session, file: str) -> None:
    """Judge a benchmark's own references, alternates, near-misses and broken answers; FILE or its name."""
    from backend.evaluation.checking import check_benchmark
    from backend.evaluation.running import find_benchmark
    from backend.execution.tools import find_tools

    path = await asyncio.to_thread(find_benchmark, ws, file)
    report = await check_benchmark(path, find_tools(ws.settings.tools))
    held = sum(case.holds is True for case in report.cases)
    lines = [
        f"{report.benchmark}: {many(report.items, 'item')}, {many(len(report.cases), 'own answer')}: "
        f"{held} as they should be, "
        f"{len(report.failed)} not, {len(report.cases) - held - len(report.failed)} not run"
    ]
    lines += [
        f"  {report.path}:{case.line}: {case.id}: a {case.kind} came out as {case.outcome}: {case.answer}"
        for case in report.failed
    ]
    lines += [f"  {report.path}:{bad.line}: no item: {bad.reason}" for bad in report.problems]
    if report.unchecked:
        shown = ", ".join(report.unchecked[:8]) + (", ..." if len(report.unchecked) > 8 else "")
        lines.append(f"  {len(report.unchecked)} items have no reference that could be judged here: {shown}")
    session.show(_check_json(report), "\n".join(lines))
    if not report.holds:
        sys.exit(EXIT_FAILED)


def _check_json(report: CheckReport) -> dict[str, Any]:
    return {
        "benchmark": report.benchmark, "path": report.path, "items": report.items, "holds": report.holds,
        "outcomes": [
            {"id": case.id, "outcome": case.outcome, "detail": case.detail, "line": case.line, "kind": case.kind,
             "answer": case.answer, "holds": case.holds}
            for case in report.cases
        ],
        "unchecked": report.unchecked,
        "problems": [{"line": bad.line, "reason": bad.reason} for bad in report.problems],
    }  # fmt: skip


@command.command(epilog="Example: hafs-tui eval judge asm answers.jsonl")
@click.argument("file")
@click.argument("answers", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@in_workspace
async def judge(ws: Workspace, session: Session, file: str, answers: Path) -> None:
    """Judge ANSWERS, lines of {id, output}, by the items of a benchmark's FILE or name; no model is asked."""
    from backend.evaluation.given import judge_file
    from backend.evaluation.running import find_benchmark
    from backend.execution.tools import find_tools

    path = await asyncio.to_thread(find_benchmark, ws, file)
    judged = await judge_file(path, answers, find_tools(ws.settings.tools))
    lines = [
        f"{judged.benchmark}: {many(len(judged.answers), 'answer')} to {many(judged.items, 'item')}: "
        f"{judged.count('correct')} correct, {judged.count('not_run')} not run, "
        f"{len(judged.unanswered)} items without an answer"
    ]
    lines += [f"  no item or no answer: line {bad.line}: {bad.reason}" for bad in judged.problems]
    rows = [(a.id, a.outcome, a.detail[:100]) for a in judged.answers]
    value = {
        "benchmark": judged.benchmark, "items": judged.items, "unanswered": judged.unanswered,
        "outcomes": [
            {"id": a.id, "outcome": a.outcome, "score": a.score, "detail": a.detail, "line": a.line}
            for a in judged.answers
        ],
        "problems": [{"line": bad.line, "reason": bad.reason} for bad in judged.problems],
    }  # fmt: skip
    session.show(value, "\n".join(lines) + "\n" + table(("item", "outcome", "detail"), rows))


@command.command("list", epilog="Example: hafs-tui eval list")
@in_workspace
async def list_(ws: Workspace, session: Session) -> None:
    """Every evaluation, newest first."""
    from backend.evaluation.running import list_evaluations

    found = await list_evaluations(ws)
    rows = [(e.id, e.model, ", ".join(e.benchmarks), e.state) for e in found]
    value = [
        {"id": e.id, "model": e.model, "benchmarks": e.benchmarks, "state": e.state, "error": e.error}
        for e in found
    ]
    session.show(value, table(("id", "model", "benchmarks", "state"), rows))


@command.command(epilog="Example: hafs-tui eval show 2")
@click.argument("evaluation_id", type=int)
@in_workspace
async def show(ws: Workspace, session: Session, evaluation_id: int) -> None:
    """One evaluation, item by item."""
    from backend.evaluation.running import evaluation_document, show_evaluation

    evaluation, outcomes = await show_evaluation(ws, evaluation_id)
    rows = [(o.benchmark, o.item_id, o.outcome, o.answer[:40], o.reference[:40]) for o in outcomes]
    document = await evaluation_document(ws, evaluation_id)
    session.show(
        document,
        f"{evaluation.model}: {evaluation.state}{': ' + evaluation.error if evaluation.error else ''}\n"
        + table(("benchmark", "item", "outcome", "answer", "reference"), rows)
        + f"\n{_perplexity(document['perplexity'])}",
    )
