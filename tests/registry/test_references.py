"""What a model's name means, and where a thing came from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.registry.catalog import ModelNotFound, list_models, register, show_model
from backend.registry.lineage import NoLineage, lineage
from backend.registry.references import ModelReferenceError, resolve, weights_of
from backend.settings import Workspace
from backend.store import datasets, deployments, evaluations, runs
from backend.store.evaluations import OutcomeRow

MEANS = [
    ("hub:Qwen/Qwen2.5-Coder-14B-Instruct", "hub", "hub:Qwen/Qwen2.5-Coder-14B-Instruct"),
    ("Qwen/Qwen2.5-Coder-14B-Instruct", "hub", "hub:Qwen/Qwen2.5-Coder-14B-Instruct"),
    ("path:/models/base", "folder", "/models/base"),
    ("/models/base", "folder", "/models/base"),
    ("path:D:/models/base", "folder", "D:/models/base"),
    ("D:\\models\\base", "folder", "D:\\models\\base"),
    ("ollama:hafs-coder:14b", "ollama", "hafs-coder:14b"),
    ("ollama:hafs-coder:14b@box", "ollama", "hafs-coder:14b"),
    ("hafs-coder:14b", "ollama", "hafs-coder:14b"),
    ("api:gemini/gemini-2.5-flash", "api", "gemini/gemini-2.5-flash"),
]


@pytest.mark.parametrize(("reference", "kind", "location"), MEANS)
async def test_references_mean_one_thing(ws: Workspace, reference: str, kind: str, location: str) -> None:
    resolved = await resolve(ws, reference)
    assert (resolved.kind, resolved.location) == (kind, location)
    again = await resolve(ws, resolved.reference)
    assert (again.kind, again.location) == (kind, location)


REFUSED = [
    ("hub:", "something is expected after hub:"),
    ("nonsense", "no model named 'nonsense'; registered: none yet"),
    ("run:nobody", "no run named nobody; there are: none yet"),
    ("api:gemini", "expected api:PROVIDER/MODEL"),
    ("gguf:nothing.gguf", "neither a registered GGUF nor a file here"),
    ("deployment:nothing", "no deployment named nothing"),
]


@pytest.mark.parametrize(("reference", "words"), REFUSED)
async def test_what_means_nothing_is_refused_with_the_remedy(
    ws: Workspace, reference: str, words: str
) -> None:
    with pytest.raises(ModelReferenceError, match=words):
        await resolve(ws, reference)


async def test_folders_here_are_told_apart(
    ws: Workspace, small_model: Path, small_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await resolve(ws, f"path:{small_model}")).kind == "folder"
    assert (await resolve(ws, str(small_adapter))).kind == "adapter"
    monkeypatch.chdir(small_model.parent)
    assert (await resolve(ws, "base")).location == str(small_model)
    gguf = tmp_path / "m.gguf"
    gguf.write_bytes(b"GGUF")
    assert (await resolve(ws, f"gguf:{gguf}")).location == str(gguf)


async def test_a_registered_name_wins_and_its_place_means_the_same(ws: Workspace) -> None:
    made = await register(ws, "base", "base", "/models/base", "box", details={"from": "a hub"})
    assert made.details == {"from": "a hub"}
    by_name, by_place = await resolve(ws, "base"), await resolve(ws, "path:/models/base")
    assert by_name == by_place
    assert by_name.host == "box"
    await register(ws, "base", "base", "/models/other", "box")
    assert (await resolve(ws, "base")).location == "/models/other"
    assert [model.name for model in await list_models(ws)] == ["base"]
    with pytest.raises(ModelNotFound, match="registered: base"):
        await show_model(ws, "bas")


async def test_a_deployment_leads_to_its_weights(ws: Workspace) -> None:
    await register(ws, "mine", "merged", "/models/mine", "local")
    await register(ws, "mine-q8_0", "gguf", "/models/mine.gguf", "local", parent="mine")
    async with ws.db.transaction() as transaction:
        await deployments.insert(
            transaction, name="coder", kind="gguf", model="mine-q8_0", host="local", details="{}"
        )
    assert (await weights_of(ws, "deployment:coder")).name == "mine"
    await register(ws, "loose", "gguf", "/models/loose.gguf", "local")
    with pytest.raises(ModelReferenceError, match="does not know what it was made from"):
        await weights_of(ws, "loose")


async def test_lineage_leads_from_a_model_to_its_data_and_from_an_item_to_its_model(ws: Workspace) -> None:
    async with ws.db.transaction() as transaction:
        dataset = await datasets.insert(
            transaction, name="pilot", version=2, path="/x", content_hash="cd" * 32, seed=1, filters="{}",
            counts={"train": 9, "val": 1, "test": 0}, members=[],
        )  # fmt: skip
        run_id = await runs.insert(
            transaction, name="tuned", kind="sft", job_id=None, host="box", base_model="hub:a/b", parent=None,
            dataset_id=dataset, recipe="{}", output_dir="/runs/tuned",
        )  # fmt: skip
        evaluation = await evaluations.insert(transaction, "run:tuned", json.dumps(["sums"]), None)
        outcome = OutcomeRow("sums", "s/1", "f", "c", "wrong", 0.0, "5", "4", "2+2?", "differs")
        await evaluations.put_outcomes(transaction, evaluation, [outcome])
    await register(ws, "tuned", "adapter", "/runs/tuned/final", "box", parent="hub:a/b", run_id=run_id)
    await register(ws, "tuned-merged", "merged", "/models/tuned", "box", parent="run:tuned")

    told = [(step.kind, step.name) for step in (await lineage(ws, "tuned-merged")).steps]
    assert told == [
        ("model (merged)", "tuned-merged"),
        ("model (adapter)", "tuned"),
        ("run (sft)", "tuned"),
        ("dataset version", "pilot@2"),
        ("model", "hub:a/b"),
    ]
    of_item = (await lineage(ws, f"item:{evaluation}/sums/s/1")).steps
    assert (of_item[0].kind, of_item[0].detail) == ("benchmark item", "wrong: differs")
    assert of_item[1].name == "tuned"
    assert (await lineage(ws, "pilot@2")).steps[0].detail.startswith("9 train")
    with pytest.raises(NoLineage, match="nothing is known"):
        await lineage(ws, "whatever")


async def test_a_sample_leads_to_its_campaign_request_and_datasets(ws: Workspace) -> None:
    async with ws.db.transaction() as transaction:
        for statement in (
            "INSERT INTO campaigns (id, name, state, provider, model, target, temperature, seed, parallel, created_at) "
            "VALUES (1, 'pilot', 'done', 'gemini', 'flash', 1, 0.7, 1, 1, 0)",
            "INSERT INTO requests (id, purpose, campaign_id, content_key, attempt, provider, model, prompt, state, "
            "cost_usd, sent_at) VALUES (7, 'generate', 1, 'k', 1, 'gemini', 'flash', '{}', 'answered', 0.002, 0)",
            "INSERT INTO samples (id, uid, campaign_id, request_id, domain, family, source, state, instruction, "
            "output, exact_hash, created_at) "
            "VALUES (5, 'u-5', 1, 7, 'asm', 'f', 'campaign', 'approved', 'a', 'b', 'h', 0)",
        ):
            await transaction.execute(statement)
        await datasets.insert(
            transaction, name="pilot", version=1, path="/x", content_hash="cd" * 32, seed=1, filters="{}",
            counts={"train": 1, "val": 0, "test": 0}, members=[(5, 1, "train")],
        )  # fmt: skip
    for name in ("5", "sample:5", "u-5"):
        told = [(step.kind, step.name, step.detail) for step in (await lineage(ws, name)).steps]
        assert told[1] == ("campaign", "pilot", "")
        assert told[2] == ("request", "7", "gemini flash, $0.0020")
        assert told[3] == ("dataset version", "pilot@1", "in its train split")
    campaigns = [step for step in (await lineage(ws, "pilot@1")).steps if step.kind == "campaign"]
    assert campaigns[0].detail == "1 samples, gemini flash"
