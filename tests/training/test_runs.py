"""Runs: what is refused before any host is asked, and a small model trained over SSH through a link that breaks."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from backend.contract.options import ParameterError
from backend.contract.recipe import SftRecipe
from backend.hosts.catalog import HostReport, add_host, open_named_host, probe_host
from backend.hosts.jobs import cancel_job
from backend.hosts.mirror import wait_for
from backend.registry.catalog import register, show_model
from backend.registry.lineage import lineage
from backend.registry.references import ModelReferenceError, resolve
from backend.settings import HostSettings, SettingsError, Workspace
from backend.store import datasets, jobs, pairs
from backend.training import runs
from backend.training.recipes import options, presets, recipe_values
from backend.training.runs import (
    TrainingRefused,
    list_runs,
    resume_run,
    run_metrics,
    show_run,
    start_dpo,
    start_sft,
)
from remote import Host
from tests.fixtures.workspace_hosts import Loop

SHORT: dict[str, Any] = {
    "lora_r": 4, "batch_size": 2, "gradient_accumulation_steps": 1, "max_length": 64, "warmup_steps": 0,
}  # fmt: skip


def write_rows(folder: Path, count: int = 12) -> Path:
    """A dataset's folder with `count` rows to train on and two held out."""
    folder.mkdir(parents=True)
    rows = [{"instruction": f"What is {n} plus 1?", "output": str(n + 1)} for n in range(count)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "val.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    return folder


async def until(check: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not await check():
            await asyncio.sleep(0.05)


async def test_sft_then_dpo_over_ssh_through_a_link_that_breaks(
    ws: Workspace, loop_host: Loop, small_model: Path, tmp_path: Path
) -> None:
    values = {**SHORT, "base_model": f"path:{small_model}", "max_steps": 8, "save_steps": 4}
    run = await start_sft(ws, "loop", values, dataset=str(write_rows(tmp_path / "sums")), name="first")
    assert run.job_id is not None
    assert run.output_dir == f"{loop_host.root}/runs/first"
    heard: list[int] = []
    waiting = asyncio.create_task(wait_for(ws, run.job_id, lambda record: heard.append(record.seq)))
    for count in (1, 5):

        async def passed(count: int = count) -> bool:
            return len(heard) >= count

        await until(passed)
        loop_host.cut()
    job = await waiting
    assert job.state == "done", job.error
    stored = [event.seq for event in await jobs.events(ws.db, job.id)]
    assert stored == heard == list(range(1, len(stored) + 1))

    details = await show_run(ws, "first")
    assert (details.run.state, details.run.step, details.run.total_steps) == ("done", 8, 8)
    assert [one.step for one in details.checkpoints] == [4, 8]
    figures = await run_metrics(ws, "first")
    assert [step for step, _ in figures["loss"]] == list(range(1, 9))
    assert {"learning_rate", "grad_norm", "tokens_per_second", "eval_loss"} <= set(figures)
    (there,) = (loop_host.root / "datasets").iterdir()
    assert there.name.startswith("sums-")
    assert (there / "train.jsonl").read_bytes() == (tmp_path / "sums/train.jsonl").read_bytes()

    adapter = await resolve(ws, "run:first")
    assert (adapter.kind, adapter.host) == ("adapter", "loop")
    assert Path(adapter.location, "adapter_model.safetensors").is_file()
    made = await show_model(ws, "first")
    assert made.parent == f"path:{small_model}"
    assert made.size_bytes == sum(file.stat().st_size for file in Path(adapter.location).iterdir())
    assert (await resolve(ws, "run:first@4")).location.endswith("checkpoint-4")

    await decide_pairs(ws)
    preferred = await start_dpo(ws, "loop", {**SHORT, "max_steps": 2}, sft_model="run:first", name="second")
    assert (preferred.parent, preferred.base_model) == ("run:first", f"path:{small_model}")
    assert preferred.job_id is not None
    job = await wait_for(ws, preferred.job_id)
    assert job.state == "done", job.error
    assert "rewards_margin" in await run_metrics(ws, "second")
    kinds = [step.kind for step in (await lineage(ws, "second")).steps]
    assert kinds == ["model (adapter)", "run (dpo)", "model (adapter)", "run (sft)", "model"]


async def decide_pairs(ws: Workspace) -> None:
    async with ws.db.transaction() as transaction:
        for n in range(4):
            await pairs.insert(
                transaction, uid=f"p{n}", batch="b", prompt=f"What is {n} plus 1?", chosen=str(n + 1),
                rejected="no", margin=1.0, scorer="execution", source="test", state="decided",
            )  # fmt: skip


async def test_a_run_that_was_stopped_goes_on(ws: Workspace, small_model: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "sums", 40)
    values = {**SHORT, "base_model": str(small_model), "max_steps": 400, "save_steps": 200, "eval_steps": 400}
    run = await start_sft(ws, "local", values, dataset=str(data), name="long")
    assert run.job_id is not None
    waiting = asyncio.create_task(wait_for(ws, run.job_id))

    async def training() -> bool:
        return bool((await show_run(ws, "long")).run.step)

    await until(training)
    with pytest.raises(TrainingRefused, match="it needs no resuming"):
        await resume_run(ws, "long")
    await cancel_job(ws, run.job_id, grace_s=60)
    stopped = await waiting
    assert stopped.state == "cancelled"
    assert "resume it" in str(stopped.error)
    (checkpoint,) = (await show_run(ws, "long")).checkpoints
    with pytest.raises(ModelReferenceError, match="has no finished adapter"):
        await resolve(ws, "run:long")
    assert (await resolve(ws, f"run:long@{checkpoint.step}")).kind == "adapter"

    twice = await asyncio.gather(resume_run(ws, "long"), resume_run(ws, "long"), return_exceptions=True)
    (refused,) = (one for one in twice if isinstance(one, Exception))
    assert "was resumed meanwhile" in str(refused), "two trainers in one folder would ruin each other"
    (resumed,) = (one for one in twice if not isinstance(one, BaseException))
    assert resumed.job_id not in (None, run.job_id)

    async def past_it() -> bool:
        return ((await show_run(ws, "long")).run.step or 0) > checkpoint.step

    waiting = asyncio.create_task(wait_for(ws, str(resumed.job_id)))
    await until(past_it)
    await cancel_job(ws, str(resumed.job_id), grace_s=60)
    await waiting
    started = (await jobs.events(ws.db, str(resumed.job_id), kind="started"))[0]
    assert started.payload["resumed_step"] == checkpoint.step
    details = await show_run(ws, "long")
    assert len(details.jobs) == 2
    steps = [step for step, _ in (await run_metrics(ws, "long", ["loss"]))["loss"]]
    assert steps == list(range(1, len(steps) + 1)), "both jobs' steps in one series, none twice"
    assert len(steps) > checkpoint.step


async def test_a_dataset_version_is_copied_under_its_hash(
    ws: Workspace, small_model: Path, tmp_path: Path
) -> None:
    folder = write_rows(tmp_path / "pilot_1")
    async with ws.db.transaction() as transaction:
        for name, rows in (("pilot", 12), ("empty", 0)):
            await datasets.insert(
                transaction, name=name, version=1, path=str(folder), content_hash="ab" * 32, seed=1, filters="{}",
                counts={"train": rows, "val": 2, "test": 0}, members=[],
            )  # fmt: skip
    values = {**SHORT, "base_model": str(small_model), "max_steps": 1, "output_dir": "elsewhere/mine"}
    run = await start_sft(ws, "local", values, dataset="pilot@1")
    assert run.name == "mine"
    assert run.output_dir == f"{ws.host_root}/elsewhere/mine"
    assert run.dataset_id is not None
    assert run.recipe["dataset"] == f"{ws.host_root}/datasets/pilot-v1-{'ab' * 6}"
    await cancel_job(ws, str(run.job_id), grace_s=0)
    assert (await wait_for(ws, str(run.job_id))).state == "cancelled"
    with pytest.raises(TrainingRefused, match="empty@1 has no rows"):
        await start_sft(ws, "local", values, dataset="empty", name="x")
    with pytest.raises(TrainingRefused, match="a run named mine is there already"):
        await start_sft(ws, "local", values, dataset="pilot")


BROKEN: list[tuple[str, str]] = [
    ("", "is empty: there is nothing to train on"),
    ('{"instruction": "a", "output": "b"}\n{"instruction": "a"\n', "rows.jsonl:2"),
    ('{"instruction": "a", "output": " "}\n', "rows.jsonl:1: output is empty"),
    ('{"text": "only"}\n', "rows.jsonl:1: expected instruction and output"),
]


@pytest.mark.parametrize(("content", "problem"), BROKEN)
async def test_broken_data_is_refused_with_its_line(
    ws: Workspace, small_model: Path, tmp_path: Path, content: str, problem: str
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(content)
    with pytest.raises(TrainingRefused, match=problem):
        await start_sft(ws, "local", {"base_model": str(small_model)}, dataset=str(file))
    assert await list_runs(ws) == []


async def test_what_cannot_be_trained_is_refused_before_any_host_is_asked(
    ws: Workspace, small_model: Path, small_adapter: Path, tmp_path: Path
) -> None:
    data = str(write_rows(tmp_path / "sums"))

    async def refused(error: type[Exception], words: str, dataset: str = data, **values: Any) -> None:
        with pytest.raises(error, match=words):
            await start_sft(ws, "nowhere", {"base_model": str(small_model), **values}, dataset=dataset)

    await refused(ParameterError, "did you mean lora_r", lora_rank=4)
    await refused(ParameterError, "batch_size: expected at least 1", batch_size=0)
    await refused(TrainingRefused, "neither a dataset nor a file here", dataset="pilot@3")
    await refused(TrainingRefused, "is an adapter", base_model=f"path:{small_adapter}")
    await refused(ModelReferenceError, "no model named 'qwen'", base_model="qwen")
    await refused(SettingsError, "no host named nowhere")
    with pytest.raises(ModelReferenceError, match="no set of weights"):
        await start_dpo(ws, "local", {}, sft_model="ollama:hafs-coder:14b", preference_data=_pairs(tmp_path))
    with pytest.raises(TrainingRefused, match="no pair is decided yet"):
        await start_dpo(ws, "local", {}, sft_model=str(small_model))
    assert await list_runs(ws) == []


def _pairs(folder: Path) -> Path:
    file = folder / "pairs.jsonl"
    file.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    return file


async def test_a_host_without_the_libraries_says_what_helps(
    ws: Workspace, small_model: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "venv"
    made = await asyncio.create_subprocess_exec(sys.executable, "-m", "venv", "--without-pip", str(bare))
    assert await made.wait() == 0
    add_host(
        ws, "bare", HostSettings(kind="local", root=str(tmp_path / "root"), python=str(bare / "bin/python"))
    )
    data = str(write_rows(tmp_path / "sums"))
    with pytest.raises(TrainingRefused, match=r"host bare has no torch(.|\n)*-m pip install torch"):
        await start_sft(ws, "bare", {"base_model": str(small_model)}, dataset=data)


async def test_a_tag_is_followed_to_the_weights_it_was_made_from(ws: Workspace, small_adapter: Path) -> None:
    await register(ws, "mine", "adapter", str(small_adapter), "local")
    await register(ws, "mine-f16", "gguf", "/models/mine.gguf", "local", parent="mine")
    await register(ws, "coder:1", "ollama", "coder:1", "local", parent="mine-f16")
    from backend.registry.references import weights_of

    assert (await weights_of(ws, "ollama:coder:1")).location == str(small_adapter)
    assert (await weights_of(ws, "coder:1")).name == "mine"


async def test_a_model_of_this_machine_is_copied_to_a_host_that_lacks_it(
    ws: Workspace, loop_host: Loop, small_adapter: Path, tmp_path: Path
) -> None:
    from backend.hosts.placing import place_model

    await register(ws, "mine", "adapter", str(small_adapter), "local", details={"base": "hub:some/base"})
    copied: list[str] = []
    async with open_named_host(ws, "loop") as host:
        probe = await host.probe()
        placed = await place_model(
            ws, host, probe, await resolve(ws, "mine"), lambda what, done, total: copied.append(what)
        )
        again = await place_model(ws, host, probe, await resolve(ws, "mine"))
    assert placed == again
    assert placed.base == "hub:some/base"
    assert placed.location.startswith(f"{loop_host.root}/models/adapter-")
    assert copied
    names = sorted(path.name for path in small_adapter.iterdir())
    assert sorted(path.name for path in Path(placed.location).iterdir()) == names


def test_presets_are_usable_recipes_and_the_users_own_lie_over_them(ws: Workspace) -> None:
    found = presets(ws)
    assert {"cpu", "qlora-16gb", "lora-80gb", "dpo-cpu"} <= set(found)
    own = ws.config / "recipes"
    own.mkdir(parents=True)
    (own / "cpu.toml").write_text('kind = "sft"\ntitle = "mine"\n[values]\nlora_r = 2\n')
    assert recipe_values(ws, "sft", "cpu", {"max_steps": 3}) == {"lora_r": 2, "max_steps": 3}
    with pytest.raises(SettingsError, match="no preset dpo-cpu for sft"):
        recipe_values(ws, "sft", "dpo-cpu", {})
    (own / "cpu.toml").write_text('kind = "sft"\n[values]\nlora_rank = 2\n')
    with pytest.raises(SettingsError, match=r"values\.lora_rank: no such parameter"):
        presets(ws)


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_every_packaged_preset_is_accepted(ws: Workspace, kind: str) -> None:
    from backend.contract.options import from_values
    from backend.training.recipes import RECIPES

    places: Sequence[str] = [one.name for one in options(kind) if one.required]  # type: ignore[arg-type]
    for preset in presets(ws).values():
        if preset.kind == kind:
            from_values(RECIPES[preset.kind], {**preset.values, **dict.fromkeys(places, "x")})


async def test_a_host_without_bitsandbytes_is_refused_for_4_bit_alone(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = await probe_host(ws, "local")
    without = dataclasses.replace(whole, libraries={**whole.libraries, "bitsandbytes": None})

    async def report(host: Host) -> HostReport:
        return without

    monkeypatch.setattr(runs, "report_of", report)
    recipe = SftRecipe(output_dir="x", base_model="x", dataset="x")
    async with open_named_host(ws, "local") as host:
        assert (await runs.ready(host, recipe)).python == whole.probe.python
        for wanting in ({"load_in_4bit": True}, {"optim": "adamw_8bit"}):
            with pytest.raises(
                TrainingRefused, match=r"has no bitsandbytes(.|\n)*-m pip install bitsandbytes"
            ):
                await runs.ready(host, dataclasses.replace(recipe, **wanting))  # type: ignore[arg-type]
