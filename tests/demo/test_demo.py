"""The demo itself, without a screen: every stage for real, and the model really better at the end of it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from backend.datasets.catalog import find
from backend.datasets.formats import partition, read_rows
from backend.evaluation.benchmarks import read_benchmark
from backend.evaluation.running import find_benchmark
from backend.generation.progress import every_progress
from backend.settings import open_workspace
from backend.store import decisions, deployments, jobs, pairs, samples
from backend.store.samples import Filter


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The one JSON document that `hafs-tui --json demo --headless` prints."""
    home = tmp_path_factory.mktemp("demo")

    async def run() -> bytes:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hafs_tui", "--json", "--home", str(home), "demo", "--headless"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
        assert process.returncode == 0, errors.decode(errors="replace")[-4000:]
        return output

    document: dict[str, Any] = json.loads(asyncio.run(run()))
    return document


def stage(demo: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(s for s in demo["stages"] if s["name"] == name)["figures"]
    return found


pytestmark = pytest.mark.timeout(1800)


async def test_the_model_is_better_on_families_that_it_never_saw(demo: dict[str, Any]) -> None:
    figures = stage(demo, "evaluate")
    assert figures["verdict"] == "better"
    assert figures["low"] > 0
    assert figures["p_value"] < 0.05
    assert Path(figures["report"]).read_text("utf-8").count("better") >= 1
    async with open_workspace(Path(demo["workspace"])) as ws:
        version = await find(ws, "demo")
        taught = {
            row.family.split(":", 1)[-1]
            for split in ("train", "val")
            for row in partition(read_rows(Path(version.path) / f"{split}.jsonl"))[0]
            if row.family
        }
        asked = {item.family for item in read_benchmark(find_benchmark(ws, "opcodes")).items}
    assert taught
    assert not taught & asked, "a family of the benchmark was trained on"


async def test_two_campaigns_made_samples_and_a_policy_not_a_person_approved_them(
    demo: dict[str, Any],
) -> None:
    async with open_workspace(Path(demo["workspace"])) as ws:
        stands = await every_progress(ws)
        assert {p.campaign.provider for p in stands} == {"embedded", "openai"}
        assert all(p.campaign.state == "done" and p.accepted > 0 for p in stands)
        for p in stands:
            rows = (ws.campaign_folder(p.campaign.name) / "samples.jsonl").read_text("utf-8").splitlines()
            assert len(rows) == p.accepted
            assert (ws.logs / f"campaign_{p.campaign.name}.log").is_file()
        approved = await samples.ids(ws.db, Filter(states=("approved",)))
        for sample_id in approved[:5]:
            assert [d.reviewer_kind for d in await decisions.of_sample(ws.db, sample_id)] == ["policy"]


async def test_every_event_of_the_runs_is_there_once_and_the_margin_opened(demo: dict[str, Any]) -> None:
    figures = stage(demo, "fine-tune again")
    assert figures["last_margin"] > figures["first_margin"]
    losses = stage(demo, "fine-tune")
    assert losses["last_loss"] < losses["first_loss"]
    async with open_workspace(Path(demo["workspace"])) as ws:
        for job in await jobs.every(ws.db):
            assert job.state == "done", f"{job.id}: {job.error}"
            seqs = [event.seq for event in await jobs.events(ws.db, job.id)]
            assert seqs == list(range(1, len(seqs) + 1))
        assert len(await pairs.every(ws.db, state="decided")) == stage(demo, "prefer")["pairs"]


async def test_the_tuned_model_was_deployed_and_answered(demo: dict[str, Any]) -> None:
    figures = stage(demo, "deploy")
    assert figures["reply"]
    folder = Path(figures["folder"])
    assert (folder / "config.json").is_file()
    assert list(folder.glob("*.safetensors"))
    assert not list(folder.glob("*.bin"))
    async with open_workspace(Path(demo["workspace"])) as ws:
        kinds = {d.kind: d.state for d in await deployments.every(ws.db)}
    assert kinds == {"hf": "published", "gguf": "stopped"}, "what the demo served ended with it, and says so"
