"""Candidates: exactly once over restarts, cut answers scored, failures missing and never a zero."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from backend.preferences import PreferenceError
from backend.preferences.candidates import Generation, generate
from backend.preferences.pairing import pair_up
from backend.preferences.prompts import PromptItem, from_dataset, from_samples
from backend.preferences.scorers import (
    HumanScorer,
    LlmScorer,
    ReferenceScorer,
    closeness,
    load_rubric,
    read_verdict,
)
from backend.providers import Provider, ProviderConfig, ProviderError, open_provider
from backend.review.bulk import approve_by_policy
from backend.settings import SettingsError, Workspace, open_workspace
from backend.store import pairs
from backend.store.samples import Filter
from tests.fixtures.made_samples import put_sample
from tests.servers.faults import Fault, always, every, in_order, status
from tests.servers.openai_server import OpenAIServer


def items(count: int) -> list[PromptItem]:
    return [
        PromptItem(f"key{n}", f"Load {n} into A.", f"LDA #${n:02X}", "asm", f"f{n}", "asm")
        for n in range(count)
    ]


@asynccontextmanager
async def opened(server: OpenAIServer) -> AsyncIterator[Provider]:
    provider = open_provider(ProviderConfig("openai", server.base_url, "key", 10))
    try:
        yield provider
    finally:
        await provider.aclose()


def counting_reply() -> Callable[[str], str]:
    """The first answer to a prompt is right, the others are ever more wrong."""
    asked: Counter[str] = Counter()

    def reply(prompt: str) -> str:
        number = int(prompt.split()[1])
        asked[prompt] += 1
        return [f"LDA #${number:02X}", f"LDA ${number:02X}", f"LDX #${number:02X}", "no idea"][
            min(asked[prompt], 4) - 1
        ]

    return reply


async def test_candidates_are_asked_scored_and_paired(ws: Workspace) -> None:
    seen: list[Generation] = []
    async with OpenAIServer(reply=counting_reply()) as server, opened(server) as provider:
        made = await generate(
            ws, provider, "m", items(5), ReferenceScorer(), batch="b", temperatures=(0.2, 1.0), system="65816 only.",
            on_progress=seen.append,
        )  # fmt: skip
    assert (made.prompts, made.wanted, made.candidates, made.scored, made.missing) == (5, 20, 20, 20, 0)
    assert [progress.candidates for progress in seen] == list(range(1, 21))
    bodies = [request.body for request in server.paid]
    assert Counter(body["temperature"] for body in bodies) == {0.2: 10, 1.0: 10}
    assert all(body["messages"][0] == {"role": "system", "content": "65816 only."} for body in bodies)
    stored = await pairs.candidates(ws.db, "b")
    assert sorted({c.score for c in stored}, reverse=True)[0] == 1.0
    assert len({c.request_id for c in stored}) == 20

    report = await pair_up(ws, "b")
    assert (report.pairs, report.ties, report.near_equal, report.unscored) == (5, 0, 0, 0)
    made_pairs = await pairs.every(ws.db)
    assert {(p.chosen, p.rejected) for p in made_pairs} == {(f"LDA #${n:02X}", "no idea") for n in range(5)}
    assert all(p.margin == 1.0 and p.scorer == "reference" and p.source == "m" for p in made_pairs)
    assert (report.longer_chosen, report.mean_length_difference) == (1.0, 1.0)
    assert (await pair_up(ws, "b")).known == 5


async def test_the_same_batch_again_asks_nothing_and_another_asks_anew(ws: Workspace) -> None:
    async with OpenAIServer(reply=counting_reply()) as server, opened(server) as provider:
        await generate(ws, provider, "m", items(3), ReferenceScorer(), batch="b")
        again = await generate(ws, provider, "m", items(3), ReferenceScorer(), batch="b")
        assert (again.candidates, len(server.paid)) == (12, 12)
        more = await generate(ws, provider, "m", items(4), ReferenceScorer(), batch="b")
        assert (more.candidates, len(server.paid)) == (16, 16)
        await generate(ws, provider, "m", items(3), ReferenceScorer(), batch="other")
        assert len(server.paid) == 28
    assert len(await pairs.candidates(ws.db, "b")) == 16
    assert len(await pairs.candidates(ws.db, "other")) == 12


async def test_a_failure_is_missing_and_tried_again_by_the_next_call(ws: Workspace) -> None:
    bad = Fault("status", 400, message="no such thing")
    async with (
        OpenAIServer(reply=counting_reply(), script=every(4, bad)) as server,
        opened(server) as provider,
    ):
        first = await generate(ws, provider, "m", items(4), ReferenceScorer(), batch="b", parallel=1)
        assert (first.candidates, first.missing, len(first.failures)) == (12, 4, 4)
        assert "no such thing" in first.failures[0]
        assert len(await pairs.candidates(ws.db, "b")) == 12, "a failure has no row, and so no score"
        server.script = lambda _: None
        second = await generate(ws, provider, "m", items(4), ReferenceScorer(), batch="b", parallel=1)
        assert (second.candidates, second.missing, len(server.paid)) == (16, 0, 20)


async def test_a_cut_answer_is_a_candidate_that_is_scored(ws: Workspace) -> None:
    async with (
        OpenAIServer(reply=lambda _: "LDA #$00", script=always(Fault("truncation"))) as server,
        opened(server) as provider,
    ):
        made = await generate(
            ws, provider, "m", items(1), ReferenceScorer(), batch="b", candidates_per_prompt=2
        )
    assert (made.candidates, made.scored) == (2, 2)
    for candidate in await pairs.candidates(ws.db, "b"):
        assert candidate.score == 1.0
        assert "cut at the token limit" in candidate.detail


async def test_a_wrong_key_stops_the_batch_at_once(ws: Workspace) -> None:
    async with (
        OpenAIServer(script=always(status(401, message="bad key"))) as server,
        opened(server) as provider,
    ):
        with pytest.raises(ProviderError, match="bad key"):
            await generate(ws, provider, "m", items(50), ReferenceScorer(), batch="b", parallel=2)
        assert len(server.paid) <= 3


async def test_wrong_numbers_are_refused(ws: Workspace) -> None:
    async with OpenAIServer() as server, opened(server) as provider:
        with pytest.raises(PreferenceError, match="2 or more"):
            await generate(ws, provider, "m", items(1), ReferenceScorer(), batch="b", candidates_per_prompt=1)
        with pytest.raises(PreferenceError, match="need prompts"):
            await generate(ws, provider, "m", [], ReferenceScorer(), batch="b")
        assert server.paid == []


RUNNER = """
import asyncio, sys
from pathlib import Path
from backend.preferences.candidates import generate
from backend.preferences.prompts import PromptItem
from backend.preferences.scorers import ReferenceScorer
from backend.providers import ProviderConfig, open_provider
from backend.settings import open_workspace

async def main():
    items = [PromptItem(f"key{n}", f"Load {n} into A.", f"LDA #${n:02X}", "asm", f"f{n}", "asm") for n in range(10)]
    provider = open_provider(ProviderConfig("openai", sys.argv[2], "key", 10))
    async with open_workspace(Path(sys.argv[1])) as ws:
        await generate(ws, provider, "m", items, ReferenceScorer(), batch="b", parallel=3,
                       on_progress=lambda made: print(made.candidates, flush=True))

asyncio.run(main())
"""


async def test_killed_and_started_again_every_candidate_is_there_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with OpenAIServer(latency_s=0.01) as server, opened(server) as provider:
        for answers in (4, 12):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", RUNNER, str(home), server.base_url, stdout=asyncio.subprocess.PIPE
            )
            assert process.stdout is not None
            for _ in range(answers):
                await process.stdout.readline()
            process.send_signal(signal.SIGKILL)
            await process.wait()
        async with open_workspace(home) as ws:
            made = await generate(ws, provider, "m", items(10), ReferenceScorer(), batch="b")
            assert (made.candidates, made.missing) == (40, 0)
            stored = await pairs.candidates(ws.db, "b")
            assert len(stored) == len({c.request_id for c in stored}) == 40
            keys = await ws.db.fetch_all(
                "SELECT content_key, count(*) FROM requests WHERE state = 'answered' GROUP BY 1"
            )
            assert [row[1] for row in keys] == [1] * 40, "an answer that was stored is never asked for again"
            in_flight = await ws.db.fetch_value("SELECT count(*) FROM requests WHERE state != 'answered'")
        assert len(server.paid) <= 40 + in_flight


async def test_the_judge_scores_by_the_rubric_and_its_errors_are_missing(ws: Workspace) -> None:
    def verdict(prompt: str) -> str:
        if "LDX" in prompt:
            return "I would rather talk about the weather."
        return json.dumps(
            {"reason": "right", "score": 9 if "LDA #" in prompt.split("ANSWER TO GRADE")[1] else 2}
        )

    async with (
        OpenAIServer(reply=counting_reply()) as server,
        OpenAIServer(reply=verdict, script=in_order(status(503))) as judge_server,
        opened(server) as provider,
        opened(judge_server) as judge,
    ):
        scorer = LlmScorer(ws, judge, "judge-model")
        made = await generate(ws, provider, "m", items(2), scorer, batch="b", parallel=1)
        assert (made.candidates, made.scored, len(made.failures)) == (8, 6, 2)
        assert "no score from 1 to 10" in made.failures[0]
        first = judge_server.paid[-1].body
        assert (first["temperature"], first["model"]) == (0.0, "judge-model")
        assert "LDA #$01" in first["messages"][-1]["content"], "the reference is shown to the judge"
        assert first["response_format"]["type"] == "json_schema"
        scores = {c.output: c.score for c in await pairs.candidates(ws.db, "b")}
        assert scores["LDA #$01"] == 0.9
        assert scores["no idea"] == 0.2
        assert scores["LDX #$01"] is None
        report = await pair_up(ws, "b")
        assert (report.pairs, report.unscored) == (2, 2)
        assert [p.margin for p in await pairs.every(ws.db)] == [0.7, 0.7]
        purposes = await ws.db.fetch_all("SELECT DISTINCT purpose FROM requests ORDER BY 1")
        assert [row[0] for row in purposes] == ["candidate", "judge"]


async def test_a_judge_that_was_down_is_asked_again_and_the_candidates_are_not(ws: Workspace) -> None:
    async with (
        OpenAIServer(reply=lambda prompt: prompt) as server,
        OpenAIServer(reply=lambda _: "{", script=always(status(400))) as judge_server,
        opened(server) as provider,
        opened(judge_server) as judge,
    ):
        down = await generate(ws, provider, "m", items(2), LlmScorer(ws, judge, "j"), batch="b")
        assert (down.candidates, down.scored) == (8, 0)
        judge_server.script = lambda _: None
        judge_server.reply = lambda _: '{"reason": "", "score": 7}'
        up = await generate(ws, provider, "m", items(2), LlmScorer(ws, judge, "j"), batch="b")
        assert (up.scored, len(server.paid)) == (8, 8)
    assert {c.score for c in await pairs.candidates(ws.db, "b")} == {0.7}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"score": 10, "reason": "x"}', 1.0),
        ('```json\n{"reason": "fine", "score": 1}\n```', 0.1),
        ('{"score": 0}', None),
        ('{"score": 11}', None),
        ('{"score": true}', None),
        ('{"score": "8"}', None),
        ("8", None),
        ("{not json}", None),
        ("", None),
    ],
)
def test_a_verdict_is_a_score_from_one_to_ten_or_nothing(text: str, value: float | None) -> None:
    assert read_verdict(text).value == value


async def test_a_rubric_of_ones_own_wins_and_a_broken_one_is_told_by_line(ws: Workspace) -> None:
    assert load_rubric(ws).version == 1
    folder = ws.config / "rubrics"
    folder.mkdir(parents=True)
    (folder / "answer_quality.toml").write_text('name = "mine"\nsystem = ""\nprompt = "{{ answer }}"\n')
    assert load_rubric(ws).name == "mine"
    (folder / "answer_quality.toml").write_text('name = "mine"\nsystem = ""\npromt = "x"\n')
    with pytest.raises(SettingsError, match=r"answer_quality\.toml:3: promt"):
        load_rubric(ws)
    with pytest.raises(PreferenceError, match="no rubric 'other'"):
        load_rubric(ws, "other")


def test_closeness_ranks_wrong_answers_by_how_near_they_came() -> None:
    ranked = ["LDA $10", "LDA ($10),Y", "LDX #$10", "NOP", ""]
    scores = [closeness(answer, "LDA #$10", "asm") for answer in ranked]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores[:4])) == 4
    assert all(0 <= score < 0.8 for score in scores)


async def test_human_leaves_every_pair_to_people(ws: Workspace) -> None:
    async with OpenAIServer(reply=counting_reply()) as server, opened(server) as provider:
        made = await generate(ws, provider, "m", items(3), HumanScorer(), batch="b")
    assert (made.candidates, made.scored, made.failures) == (12, 0, ())
    report = await pair_up(ws, "b", seed=3)
    assert report.pairs == 6, "four different answers make two disjoint pairs a prompt"
    assert {(p.margin, p.state, p.scorer) for p in await pairs.every(ws.db)} == {(None, "pending", "human")}


async def test_ties_and_answers_that_say_the_same_make_no_pair(ws: Workspace) -> None:
    async def put(prompt: str, *answers: tuple[str, float | None]) -> None:
        async with ws.db.transaction() as transaction:
            for output, score in answers:
                await pairs.insert_candidate(
                    transaction, batch="b", prompt_key=prompt, prompt=prompt, request_id=None, model="m",
                    temperature=1.0, output=output, scorer="llm", score=score, detail="",
                )  # fmt: skip

    await put("tie", ("one", 0.5), ("two", 0.5))
    await put("small", ("one", 0.5), ("two", 0.55))
    await put("near", ("Lda  #$01", 0.9), ("LDA #$01", 0.1))
    await put("few", ("one", 0.9), ("two", None))
    await put("good", ("one", 0.9), ("two", 0.4), ("three", 0.1))
    report = await pair_up(ws, "b")
    assert (report.prompts, report.pairs, report.ties, report.near_equal, report.too_few, report.unscored) == (
        5, 1, 2, 1, 1, 1,
    )  # fmt: skip
    (pair,) = await pairs.every(ws.db)
    assert (pair.chosen, pair.rejected, pair.margin) == ("one", "three", 0.8)


async def test_prompts_come_from_training_only(ws: Workspace) -> None:
    from backend.datasets.building import build

    for n in range(30):
        await put_sample(
            ws,
            f"p{n}",
            family=f"f{n // 2}",
            output=f"LDA #${n:02X}",
            extra=json.dumps({"reference": f"r{n}"}),
        )
    ws.benchmarks.mkdir(parents=True)
    measured = {"instruction": "Write the routine p1.", "output": "x", "category": "asm"}
    (ws.benchmarks / "mine_benchmark.jsonl").write_text(json.dumps(measured) + "\n")
    await approve_by_policy(ws, Filter(), "test")
    version = await build(ws, "pilot", seed=1)
    test = {json.loads(line)["instruction"] for line in (Path(version.path) / "test.jsonl").open()}
    families = {
        row[0]
        for row in await ws.db.fetch_all(
            "SELECT family FROM samples JOIN dataset_rows ON sample_id = id WHERE split = 'test'"
        )
    }
    drawn = await from_samples(ws, Filter(), 100, seed=2)
    prompts = {item.prompt for item in drawn}
    assert test
    assert not prompts & test
    assert not {item.family for item in drawn} & families
    assert "Write the routine p1." not in prompts
    assert all(item.reference == f"r{item.prompt.split('routine p')[1].rstrip('.')}" for item in drawn)
    few = await from_dataset(ws, "pilot", 5, seed=2)
    assert len(few) == 5
    assert {item.key for item in few} <= {item.key for item in drawn}
    assert [item.key for item in await from_dataset(ws, "pilot", 5, seed=2)] == [item.key for item in few]
    with pytest.raises(PreferenceError, match="for measuring"):
        await from_dataset(ws, "pilot", 5, split="test")  # type: ignore[arg-type]
    with pytest.raises(PreferenceError, match="no prompt"):
        await from_samples(ws, Filter(domain="nothing"), 5)
