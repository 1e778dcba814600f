"""The gate: what a comparison calls worse, or was never compared, is published for a reason only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.deployment.folders import deploy_folder
from backend.deployment.gate import DeploymentRefused, Terms, gate_words, require_verdict
from backend.deployment.serving import deployments
from backend.evaluation.comparing import compare_models
from backend.registry.catalog import register
from backend.settings import Workspace
from backend.store import evaluations
from backend.store.evaluations import OutcomeRow


async def evaluated(ws: Workspace, model: str, passed: dict[str, int]) -> int:
    """An evaluation of 30 items on each benchmark, of which so many are right."""
    async with ws.db.transaction() as t:
        number = await evaluations.insert(t, model, json.dumps(list(passed)), None)
        rows = [
            OutcomeRow(
                name, str(i), str(i), "any", "correct" if i < right else "wrong", float(i < right), "a", "", "", ""
            )
            for name, right in passed.items()
            for i in range(30)
        ]  # fmt: skip
        await evaluations.put_outcomes(t, number, rows)
        await t.execute("UPDATE evaluations SET state = 'done' WHERE id = ?", (number,))
    return number


@pytest.fixture
async def models(ws: Workspace, tmp_path: Path) -> Workspace:
    """A base, and a model of two names: a folder and the GGUF made of it."""
    for name in ("base", "tuned"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        await register(ws, name, "merged", str(folder), "local")
    await register(ws, "tuned-f16", "gguf", str(tmp_path / "tuned.gguf"), "local", parent="tuned")
    await register(ws, "tag:1", "ollama", "tag:1", "local", parent="tuned-f16")
    return ws


async def test_what_was_never_compared_needs_a_reason(models: Workspace, tmp_path: Path) -> None:
    with pytest.raises(DeploymentRefused, match=r"never compared.*--unevaluated REASON") as refused:
        await deploy_folder(models, "tuned", tmp_path / "out", name="coder")
    assert refused.value.exit_code == 3
    assert await deployments(models) == [], "nothing was begun"
    made = await deploy_folder(
        models, "tuned", tmp_path / "out", name="coder", terms=Terms(unevaluated="a first look")
    )
    assert made.details["gate"]["reason"] == "a first look"
    assert "published because: a first look" in gate_words(made.details)


async def test_what_is_worse_needs_a_reason(models: Workspace, tmp_path: Path) -> None:
    await evaluated(models, "base", {"asm": 28})
    await evaluated(models, "tuned", {"asm": 6})
    await compare_models(models, "base", "tuned")
    with pytest.raises(DeploymentRefused, match="tuned is worse on asm, all benchmarks"):
        await deploy_folder(models, "tuned", tmp_path / "out", name="coder")
    for alias in ("gguf:tuned-f16", "tag:1"):
        with pytest.raises(DeploymentRefused, match="is worse on asm"):
            await require_verdict(models, alias, Terms(unevaluated="this reason is for another refusal"))
    made = await deploy_folder(
        models, "tuned", tmp_path / "out", name="coder", terms=Terms(allow_worse="it writes comments now")
    )
    kept = made.details["gate"]
    assert (kept["verdict"], kept["reason"], kept["baseline"]) == ("worse", "it writes comments now", "base")


async def test_the_newest_comparison_counts_and_the_chosen_benchmarks(models: Workspace) -> None:
    await evaluated(models, "base", {"asm": 15, "oracle": 28})
    await evaluated(models, "tuned", {"asm": 28, "oracle": 4})
    await compare_models(models, "base", "tuned")
    with pytest.raises(DeploymentRefused, match="worse on oracle"):
        await require_verdict(models, "tuned", Terms())
    chosen = await require_verdict(models, "tuned", Terms(benchmarks=("asm",), baseline="base"))
    assert chosen["baseline"] == "base"
    with pytest.raises(
        DeploymentRefused, match="not compared on yaze; its newest comparison has: asm, oracle"
    ):
        await require_verdict(models, "tuned", Terms(benchmarks=("yaze",)))
    with pytest.raises(DeploymentRefused, match="never compared with tag:9"):
        await require_verdict(models, "tuned", Terms(baseline="tag:9"))
    await evaluated(models, "tuned", {"asm": 28, "oracle": 28})
    await compare_models(models, "base", "tuned")
    assert (await require_verdict(models, "tuned", Terms()))["verdict"] == "better"
