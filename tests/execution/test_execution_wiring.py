"""Execution where it is used: a campaign's gate, an evaluation, candidates, rescoring, and the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from backend.datasets.building import build
from backend.evaluation.benchmarks import BenchmarkError
from backend.evaluation.given import judge_file
from backend.evaluation.running import evaluation_document, run_evaluation
from backend.execution.tools import Tools
from backend.generation.campaigns import NewCampaign, create
from backend.generation.domains import load_domains
from backend.generation.engine import run_campaign
from backend.generation.rescoring import rescore
from backend.preferences.running import generate_pairs
from backend.review.bulk import approve_by_policy
from backend.settings import SettingsError, Workspace, open_workspace
from backend.store import pairs, samples
from backend.store.samples import Filter
from tests.execution.roms import DONE, ROUTINE
from tests.fixtures.make_asm_benchmark import FILE, ITEMS
from tests.servers.openai_server import OpenAIServer

COUNT = 16


def write_asm_domain(home: Path) -> None:
    """Seeds that ask to store a number at $20; each says what its routine must leave."""
    folder = home / "config" / "domains"
    folder.mkdir(parents=True, exist_ok=True)
    setup = ROUTINE.replace("jsr Answer", "jsr {{ label }}")
    (folder / "store.toml").write_text(
        'name = "store"\ntitle = "Storing"\nseeds = "store.jsonl"\nprompt = "Store {{ number }}"\n'
        'instruction = "Write the routine {{ label }} that stores {{ number }} at $20."\nrounds = 1\n'
        f"[gates.duplicates]\nthreshold = 1\n[gates.execution]\nsetup = '''\n{setup}'''\n"
    )
    seeds = [
        {
            "id": f"s{n}", "number": n, "label": f"Store{n}",
            "expect": {"frames": 3, "done": DONE, "cases": [{"seed": n, "expect": {"wram": {"7E0020": f"{n:02X}"}}}]},
        }
        for n in range(COUNT)
    ]  # fmt: skip
    (folder / "store.jsonl").write_text("".join(json.dumps(seed) + "\n" for seed in seeds))


def right(prompt: str) -> str:
    number = int(re.findall(r"tores? (\d+)", prompt)[0])
    return f"```asm\n; {'of ' * number}its own\nStore{number}:\n    lda #{number}\n    sta $20\n    rts\n```"


def half_right(prompt: str) -> str:
    """Of four numbers: right, right, does not assemble, assembles and is wrong."""
    number = int(re.findall(r"tores? (\d+)", prompt)[0])
    answer = right(prompt)
    return [answer, answer, answer.replace("sta", "sto"), answer.replace("$20", "$21")][number % 4]


async def campaign(ws: Workspace, url: str, target: int) -> None:
    write_asm_domain(ws.home)
    values = {"provider": "openai", "model": "m", "base_url": url, "domains": ("store",)}
    await create(ws, NewCampaign(name="asm", target=target, **values))  # type: ignore[arg-type]


async def test_an_asm_campaign_accepts_exactly_what_assembles_and_is_right(ws: Workspace) -> None:
    async with OpenAIServer(reply=half_right) as server:
        await campaign(ws, server.base_url, COUNT)
        ended = await run_campaign(ws, "asm")
    assert ended.state == "done"
    every = await samples.by_ids(ws.db, await samples.ids(ws.db, Filter(campaign="asm")))
    assert len(every) == COUNT
    reasons = []
    for sample in every:
        number = int(sample.extra["seed"][1:])
        gates = {gate.name: gate for gate in await samples.gates(ws.db, sample.id)}
        assert (sample.state == "pending") == (number % 4 < 2)
        assert list(gates) == ["schema", "length", "execution", "duplicates"]
        assert gates["execution"].passed is (number % 4 < 2)
        assert gates["execution"].figure == [1.0, 1.0, 0.0, 0.5][number % 4]
        reasons.append(gates["execution"].reason.split(":")[0])
    assert {reason: reasons.count(reason) for reason in set(reasons)} == {
        "as expected": 8, "no_assembly": 4, "wrong": 4,
    }  # fmt: skip


async def test_without_asar_the_gate_is_not_run_and_a_rescore_makes_up_for_it(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAFS_ASAR", "/no/asar")
    async with OpenAIServer(reply=half_right) as server:
        await campaign(ws, server.base_url, COUNT)
        await run_campaign(ws, "asm")
    ids = await samples.ids(ws.db, Filter(campaign="asm"))
    for sample_id in ids:
        gate = next(g for g in await samples.gates(ws.db, sample_id) if g.name == "execution")
        assert gate.passed is None
        assert gate.reason == "not run: HAFS_ASAR names /no/asar, which is no file"
    assert len(await samples.ids(ws.db, Filter(campaign="asm", states=("pending",)))) == COUNT
    monkeypatch.delenv("HAFS_ASAR")
    again = await rescore(ws, "asm")
    assert (again.judged, again.now_gated, again.now_pending) == (COUNT, COUNT // 2, 0)


async def test_candidates_are_scored_by_how_far_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    asked: dict[str, int] = {}

    def reply(prompt: str) -> str:
        if prompt.startswith("Store "):
            return right(prompt)
        asked[prompt] = asked.get(prompt, 0) + 1
        answer = right(prompt)
        return [answer, answer.replace("sta", "sto"), answer.replace("$20", "$21"), answer][asked[prompt] % 4]

    home = tmp_path / "home"
    (home / "config").mkdir(parents=True)
    async with OpenAIServer(reply=reply) as server:
        (home / "config/settings.toml").write_text(f'[providers.openai]\nbase_url = "{server.base_url}"\n')
        async with open_workspace(home) as ws:
            await campaign(ws, server.base_url, COUNT)
            await run_campaign(ws, "asm")
            await approve_by_policy(ws, Filter(), "test")
            await build(ws, "storing")
            made = await generate_pairs(
                ws, model="api:openai/m", dataset="storing", num_samples=4, scorer="execution"
            )
            assert made.generation.scored == 16
            stored = await pairs.every(ws.db)
            assert {(pair.scorer, pair.margin) for pair in stored} == {("execution", 1.0)}
            assert all("sta $20" in pair.chosen and "sto $20" in pair.rejected for pair in stored)


async def test_an_evaluation_executes_the_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key")

    def reply(prompt: str) -> str:
        item = next(item for item in ITEMS if f"routine {item.label} for" in prompt)
        place = ITEMS.index(item)
        return [item.reference, item.near_miss, item.broken, 'incbin "/etc/passwd"'][place % 4]

    home = tmp_path / "home"
    (home / "config").mkdir(parents=True)
    async with OpenAIServer(reply=reply) as server:
        (home / "config/settings.toml").write_text(f'[providers.openai]\nbase_url = "{server.base_url}"\n')
        async with open_workspace(home) as ws:
            evaluation = await run_evaluation(ws, "api:openai/m", ["asm"], max_new_tokens=512)
            document = await evaluation_document(ws, evaluation.id)
    outcomes = [item["outcome"] for item in sorted(document["items"], key=lambda item: _place(item["id"]))]
    assert [set(outcomes[place::4]) - {"no_finish"} for place in range(4)] == [
        {"correct"}, {"wrong"}, {"no_assembly"}, {"refused"},
    ]  # fmt: skip
    scores = [item["score"] for item in document["items"]]
    assert scores.count(1.0) == outcomes.count("correct") == len(outcomes[::4])
    assert "is scored by text" not in " ".join(evaluation.notes)


async def test_given_answers_are_judged_without_a_model(tools: Tools, tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    rows = [
        {"id": "asm-copy", "output": ITEMS[6].reference}, {"id": "asm-copy", "output": ITEMS[6].near_miss},
        {"id": "asm-sum16", "output": ""}, {"id": "none", "output": "x"}, {"id": "asm-mul8"},
    ]  # fmt: skip
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{\n")
    judged = await judge_file(FILE, answers, tools)
    assert [(answer.line, answer.outcome, answer.score) for answer in judged.answers] == [
        (1, "correct", 1.0), (2, "wrong", 0.0), (3, "no_answer", 0.0),
    ]  # fmt: skip
    assert [(bad.line, bad.reason.split(":")[0]) for bad in judged.problems] == [
        (4, "the benchmark has no item 'none'"), (5, "an answer is {id, output}, both text"), (6, "not JSON"),
    ]  # fmt: skip
    assert len(judged.unanswered) == len(ITEMS) - 2
    answers.write_text("")
    with pytest.raises(BenchmarkError, match="holds no answer"):
        await judge_file(FILE, answers, tools)


def _place(item_id: str) -> int:
    return [f"asm-{item.name}" for item in ITEMS].index(item_id)


def test_a_domain_whose_gate_has_no_place_for_the_answer_is_refused(tmp_path: Path) -> None:
    write_asm_domain(tmp_path)
    path = tmp_path / "config" / "domains" / "store.toml"
    path.write_text(path.read_text().replace(";@ANSWER@", ""))
    with pytest.raises(SettingsError, match="setup has no line ;@ANSWER@"):
        load_domains(tmp_path / "config")
    write_asm_domain(tmp_path)
    seeds = path.with_suffix(".jsonl")
    seeds.write_text(seeds.read_text().replace('"7E0020"', '"7E002"', 1))
    with pytest.raises(SettingsError, match=r"store.jsonl:1: .*no address of six hex digits"):
        load_domains(tmp_path / "config")


def test_the_packaged_domains_say_which_answers_are_code(tmp_path: Path) -> None:
    domains = load_domains(tmp_path)
    for name in ("asm", "oracle", "yaze"):
        assert "execution" in domains[name].gates.order
    assert "execution" not in domains["text"].gates.order
    yaze, oracle = domains["yaze"], domains["oracle"]
    cpp = "```cpp\nint f() { return 1; }\n```"
    task = yaze.task(yaze.seeds[0])
    assert task is not None
    assert yaze.code_of(cpp, task) is None, "C++ is not assembled"
    assert yaze.code_of(cpp + "\n```asm\nlda #$12\n```", task) == "lda #$12"
    explained = oracle.seed("oracle-002")
    assert explained is not None
    assert oracle.task(explained) is None
    hook = oracle.seed("oracle-001")
    assert hook is not None
    patch = oracle.task(hook)
    assert patch is not None
    assert oracle.code_of("No code, only words.", patch) is None
