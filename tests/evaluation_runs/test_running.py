"""Evaluations: every outcome stored once, whoever is killed; weights on a host and models behind a server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from backend.evaluation.benchmarks import BenchmarkError
from backend.evaluation.recording import EvaluationFailed
from backend.evaluation.running import (
    compare_models,
    comparison_document,
    evaluation_document,
    find_benchmark,
    list_benchmarks,
    list_comparisons,
    list_evaluations,
    load_comparison,
    run_evaluation,
    show_evaluation,
)
from backend.registry.references import ModelReferenceError
from backend.settings import Workspace, open_workspace
from backend.store import evaluations, jobs
from tests.fixtures.workspace_hosts import Loop
from tests.servers.faults import every, in_order, status
from tests.servers.openai_server import OpenAIServer

COUNT = 24


def sums(folder: Path, count: int = COUNT) -> Path:
    """A benchmark of `count` sums in families of two."""
    file = folder / "sums_benchmark.jsonl"
    rows = [
        {"id": f"s{n}", "instruction": f"What is {n} plus 1?", "output": str(n + 1), "category": "sum",
         "family": f"f{n // 2}"}
        for n in range(count)
    ]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def right(prompt: str) -> str:
    return str(int(prompt.split()[2]) + 1)


def half_right(prompt: str) -> str:
    """Right for even numbers, wrong for odd ones."""
    number = int(prompt.split()[2])
    return str(number + 1) if number % 2 == 0 else "no idea"


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer(reply=right) as made:
        yield made


@pytest.fixture
async def asking(server: OpenAIServer, tmp_path: Path) -> AsyncIterator[Workspace]:
    """A workspace whose OpenAI-compatible provider is the test's server."""
    home = tmp_path / "asking"
    (home / "config").mkdir(parents=True)
    (home / "config/settings.toml").write_text(
        f'[providers.openai]\nbase_url = "{server.base_url}"\nparallel = 4\n'
    )
    async with open_workspace(home) as ws:
        yield ws


async def until(check: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not await check():
            await asyncio.sleep(0.02)


async def test_weights_on_a_host_and_their_report(
    ws: Workspace, loop_host: Loop, small_model: Path, small_adapter: Path, tmp_path: Path
) -> None:
    benchmark = str(sums(tmp_path, 8))
    heldout = tmp_path / "val.jsonl"
    heldout.write_text('{"instruction": "What is 1 plus 1?", "output": "2"}\n')
    done: list[tuple[int, int]] = []
    output = tmp_path / "out/base.json"

    async def evaluate(model: Path, output: Path | None = None) -> int:
        found = await run_evaluation(
            ws, f"path:{model}", [benchmark], heldout=heldout, host="loop", output=output, max_new_tokens=4,
            on_progress=lambda so_far, total: done.append((so_far, total)),
        )  # fmt: skip
        assert found.state == "done"
        return found.id

    base, tuned = await evaluate(small_model, output), await evaluate(small_adapter)
    assert done[0] == (0, 8)
    assert done[-1] == (8, 8)
    document = json.loads(output.read_text())
    assert document == await evaluation_document(ws, base)
    assert document["perplexity"]["reason"] is None
    assert document["perplexity"]["word_rolling"] > 1
    assert [item["id"] for item in document["items"]] == [f"s{n}" for n in range(8)]
    _, outcomes = await show_evaluation(ws, base)
    assert {row.outcome for row in outcomes} <= {"wrong", "no_answer"}
    assert outcomes[0].prompt == "What is 0 plus 1?"

    comparison, row = await compare_models(ws, f"path:{small_model}", str(tuned), tmp_path / "report.md")
    assert row.verdict == "cannot_tell"
    assert comparison.counts.neither == 8
    assert (tmp_path / "report.md").read_text().startswith("# Can't tell")


async def test_a_job_that_ran_on_while_nobody_looked_is_taken_up(
    ws: Workspace, small_model: Path, tmp_path: Path
) -> None:
    benchmark = str(sums(tmp_path, 6))
    first = asyncio.create_task(
        run_evaluation(ws, f"path:{small_model}", [benchmark], max_new_tokens=4, batch_size=2)
    )

    async def launched() -> bool:
        return [job.state for job in await jobs.every(ws.db)] == ["running"]

    await until(launched)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert [one.state for one in await list_evaluations(ws)] == ["running"]
    found = await run_evaluation(ws, f"path:{small_model}", [benchmark], max_new_tokens=4, batch_size=2)
    assert found.state == "done"
    assert len(await jobs.every(ws.db)) == 1
    assert len(await list_evaluations(ws)) == 1
    assert len(await evaluations.outcomes(ws.db, found.id)) == 6


async def test_a_perplexity_is_never_that_of_other_rows(
    ws: Workspace, small_model: Path, tmp_path: Path
) -> None:
    benchmark = str(sums(tmp_path, 2))
    measured = []
    for word in ("apple", "zeppelin"):
        rows = tmp_path / f"{word}.jsonl"
        rows.write_text(json.dumps({"instruction": f"Say {word}", "output": f"{word} {word}"}) + "\n")
        found = await run_evaluation(
            ws, f"path:{small_model}", [benchmark], heldout=rows, max_new_tokens=2, batch_size=2
        )
        measured.append(found.perplexity["byte_rolling"])
        async with ws.db.transaction() as transaction:  # as a crash just before its end leaves it
            await transaction.execute("UPDATE evaluations SET state = 'failed', perplexity = '{}'")
    assert len(await list_evaluations(ws)) == 1
    assert measured[0] != measured[1]


async def test_a_better_model_is_called_better(
    asking: Workspace, server: OpenAIServer, tmp_path: Path
) -> None:
    benchmark = str(sums(tmp_path))
    good = await run_evaluation(asking, "api:openai/good", [benchmark])
    server.reply = half_right
    worse = await run_evaluation(asking, "api:openai/worse", [benchmark])
    assert len(server.paid) == 2 * COUNT
    document = await evaluation_document(asking, good.id)
    assert document["benchmarks"][0]["passed"] == COUNT
    assert document["perplexity"]["word_rolling"] is None
    assert worse.output is not None
    assert worse.output.endswith("evaluation.json")

    comparison, row = await compare_models(asking, "api:openai/worse", "api:openai/good")
    assert row.verdict == "better"
    assert (comparison.counts.won, comparison.counts.lost) == (COUNT // 2, 0)
    assert comparison_document(comparison, row)["benchmarks"][0]["name"] == "sums"
    by_files, _ = await compare_models(asking, str(good.output), str(worse.id))
    assert by_files.overall.verdict == "worse"
    assert [one.verdict for one in await list_comparisons(asking)] == ["worse", "better"]
    assert await load_comparison(asking, row) == comparison
    other = str(sums(tmp_path).rename(tmp_path / "other_benchmark.jsonl"))
    await run_evaluation(asking, "api:openai/good", [other])
    _, row = await compare_models(asking, "api:openai/worse", "api:openai/good")
    assert row.finetuned == good.id, "the newest that shares a benchmark"
    with pytest.raises(EvaluationFailed, match="no benchmark in common"):
        await compare_models(asking, "api:openai/worse", "3")


EVALUATE = """
import asyncio, sys
from pathlib import Path
from backend.evaluation.running import run_evaluation
from backend.settings import open_workspace

async def main():
    async with open_workspace(Path(sys.argv[1])) as ws:
        await run_evaluation(ws, "api:openai/good", [sys.argv[2]])

asyncio.run(main())
"""


async def test_no_item_is_paid_for_twice_after_a_kill(
    asking: Workspace, server: OpenAIServer, tmp_path: Path
) -> None:
    server.latency_s = 0.1
    benchmark = str(sums(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", EVALUATE, str(asking.home), benchmark])

    async def some() -> bool:
        return len(await evaluations.outcomes(asking.db, 1)) >= 6

    await until(some)
    process.kill()
    process.wait()
    kept = {row.prompt for row in await evaluations.outcomes(asking.db, 1)}
    before = len(server.paid)
    found = await run_evaluation(asking, "api:openai/good", [benchmark])
    assert (found.id, found.state) == (1, "done")
    assert 6 <= len(kept) < COUNT
    again = [request.body["messages"][-1]["content"] for request in server.paid[before:]]
    assert not kept & set(again)
    assert len(server.paid) <= COUNT + 4, "at most what was in flight at the kill is asked again"
    ended = await asking.db.fetch_all("SELECT state, count(*) FROM requests GROUP BY state")
    counts = {row[0]: row[1] for row in ended}
    assert counts.pop("unanswered", 0) <= 4
    assert counts == {"answered": COUNT}


async def test_a_server_that_fails_costs_no_outcome(
    asking: Workspace, server: OpenAIServer, tmp_path: Path
) -> None:
    benchmark = str(sums(tmp_path, 6))
    server.script = in_order(*[None] * 3, status(400, message="no such thing"), status(401))
    with pytest.raises(EvaluationFailed, match="run the same evaluation again"):
        await run_evaluation(asking, "api:openai/good", [benchmark])
    (failed,) = await list_evaluations(asking)
    assert failed.state == "failed"
    stored = await evaluations.outcomes(asking.db, failed.id)
    assert [row.outcome for row in stored].count("not_run") == 1, "what could not be asked is no zero"
    assert {row.score for row in stored} == {1.0, None}
    assert len(stored) < 6
    server.script = every(2, status(503))
    found = await run_evaluation(asking, "api:openai/good", [benchmark])
    assert (found.id, found.state, found.error) == (failed.id, "done", None)
    assert len(await evaluations.outcomes(asking.db, found.id)) == 6


async def test_benchmarks_are_found_by_name_and_path(ws: Workspace, tmp_path: Path) -> None:
    assert "opcodes" in list_benchmarks(ws)
    ws.benchmarks.mkdir(parents=True)
    own = sums(ws.benchmarks)
    assert find_benchmark(ws, "sums") == own
    assert find_benchmark(ws, str(own)) == own
    with pytest.raises(BenchmarkError, match="no benchmark 'asm2'"):
        find_benchmark(ws, "asm2")


async def test_what_cannot_be_evaluated_says_why(ws: Workspace, tmp_path: Path) -> None:
    empty = tmp_path / "empty_benchmark.jsonl"
    empty.write_text("\n")
    with pytest.raises(BenchmarkError, match="holds no benchmark item"):
        await run_evaluation(ws, "hub:a/b", [str(empty)])
    with pytest.raises(EvaluationFailed, match="nothing to evaluate"):
        await run_evaluation(ws, "hub:a/b", [])
    with pytest.raises(ModelReferenceError, match="no model named"):
        await run_evaluation(ws, "nobody", ["opcodes"])
    with pytest.raises(ModelReferenceError, match="no provider closedai"):
        await run_evaluation(ws, "api:closedai/x", ["opcodes"])
    with pytest.raises(EvaluationFailed, match="has no finished evaluation"):
        await compare_models(ws, "hub:a/b", "hub:a/c")
