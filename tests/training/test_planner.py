"""The planner: against what is published, against what a real step keeps, and what it advises and refuses."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from backend.contract.recipe import DpoRecipe, SftRecipe
from backend.hosts.catalog import add_host
from backend.hosts.mirror import wait_for
from backend.registry.references import resolve
from backend.settings import HostSettings, Workspace
from backend.store import jobs, memory_plans, runs
from backend.training.dimensions import Dimensions, UnknownModel, from_config, known, shipped
from backend.training.fitting import correction_for, describe_model, plan_run
from backend.training.planner import DoesNotFit, Plan, as_flags, make_plan, nearest_fit
from backend.training.recipes import presets, recipe_values
from backend.training.runs import show_run, start_dpo, start_sft
from backend.training.vram import GIB, Logits, StartAdapter, layer_bytes, passing_bytes
from hafs_tui.cli import cli
from tests.training.test_runs import SHORT, write_rows

CODER = "Qwen/Qwen2.5-Coder-14B-Instruct"
QLORA = SftRecipe(
    output_dir="o", base_model="b", dataset="d", load_in_4bit=True, bf16=True, gradient_checkpointing=True,
    batch_size=1, lora_r=16, lora_dropout=0.0,
)  # fmt: skip
PAIRS = DpoRecipe(
    output_dir="o",
    sft_model="s",
    preference_data="d",
    load_in_4bit=True,
    gradient_checkpointing=True,
    batch_size=1,
)
LAYERS: dict[str, dict[str, Any]] = {
    "qwen2": {"model_type": "qwen2", "hidden_size": 640, "num_attention_heads": 5, "num_key_value_heads": 1,
              "head_dim": 128, "intermediate_size": 1728, "vocab_size": 1024},
    "qwen3": {"model_type": "qwen3", "hidden_size": 512, "num_attention_heads": 8, "num_key_value_heads": 2,
              "head_dim": 128, "intermediate_size": 1536, "vocab_size": 1024},
}  # fmt: skip
COUNTED = ("Qwen/Qwen2.5-14B", "Qwen/Qwen3-8B", "google/gemma-2-9b", "microsoft/phi-4")


def plan(
    model: Dimensions, recipe: SftRecipe | DpoRecipe = QLORA, *, gib: float = 16, **changed: Any
) -> Plan:
    logits: Logits = changed.pop("logits", "tiled")
    return make_plan(model, dataclasses.replace(recipe, **changed), round(gib * GIB), logits=logits)


def part(made: Plan, name: str) -> int:
    return next(one.bytes for one in made.parts if one.name == name)


def first_qwen(hidden: int, layers: int, heads: int, intermediate: int, vocab: int) -> Dimensions:
    """A Qwen of the first generation, which the published table is of."""
    config = {
        "model_type": "qwen2", "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "intermediate_size": intermediate, "vocab_size": vocab,
    }  # fmt: skip
    return from_config(config, "Qwen", "its config.json")


# Qwen's README: int4 Q-LoRA, one A100, batch 1; GB at 256, 512, 1024, 2048, 4096, 8192 tokens.
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
PUBLISHED = {
    "7B": (first_qwen(4096, 32, 32, 11008, 151_936), (11.5, 11.5, 12.3, 13.9, 16.9, 23.5)),
    "14B": (first_qwen(5120, 40, 40, 13696, 152_064), (18.7, 18.4, 18.9, 19.9, 23.0, 27.9)),
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_the_slope_over_the_length_is_that_of_qwens_table(size: str) -> None:
    model, published = PUBLISHED[size]
    totals = [plan(model, lora_r=64, max_length=length, logits="whole").total for length in LENGTHS]
    slope = (totals[5] - totals[3]) / (LENGTHS[5] - LENGTHS[3])
    theirs = (published[5] - published[3]) * 1e9 / (LENGTHS[5] - LENGTHS[3])
    assert slope == pytest.approx(theirs, rel=0.25)


def test_qwens_figures_lie_above_ours_by_what_its_script_casts_to_fp32() -> None:
    """Its `prepare_model_for_kbit_training` makes embedding and head fp32: 2 more bytes each. For the 7B that is
    the whole difference; of the 14B's, 2 to 3 GB stay unexplained at short lengths."""
    for size, within in (("7B", 1.0), ("14B", 3.0)):
        model, published = PUBLISHED[size]
        for length, theirs in zip(LENGTHS[:5], published[:5], strict=True):
            made = plan(model, lora_r=64, max_length=length, logits="whole", optim="adamw_torch")
            assert made.total < theirs * 1e9
            assert (made.total + 2 * model.embedding_parameters) / 1e9 == pytest.approx(theirs, abs=within)


def test_a_14b_in_4_bits_lies_between_what_is_published() -> None:
    """LLaMA-Factory: 12 GB. Qwen: 18.9 GB at 1024 tokens."""
    assert 12 < plan(known("Qwen/Qwen2.5-14B")).total / 1e9 < 18.9
    assert 12 < plan(PUBLISHED["14B"][0], logits="whole").total / 1e9 < 18.9


def test_every_shipped_model_has_its_published_parameters() -> None:
    for name, entry in shipped().items():
        assert known(name).parameters == entry["parameters"], name


def test_rank_64_on_all_linear_layers_of_a_14b_is_275_million() -> None:
    model = known(CODER)
    assert model.adapter_parameters(64) == 275_251_200
    assert model.adapter_parameters(64, "q_proj,v_proj") == 64 * 48 * (5120 + 5120 + 5120 + 1024)
    with pytest.raises(UnknownModel, match="has no layer c_attn; lora_targets may name: down_proj"):
        model.adapter_parameters(64, "c_attn")


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """The figures of `measure_step.py`, from a process of its own (this one imports no torch)."""
    models = {
        name: {
            key: value for key, value in shipped()[name.lower()].items() if key not in ("names", "parameters")
        }
        for name in COUNTED
    }
    asked = json.dumps({"models": models, "layers": LAYERS})
    script = Path(__file__).with_name("measure_step.py")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.run(
        [sys.executable, str(script), asked], capture_output=True, text=True, env=environment, timeout=240
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def test_weights_are_as_accelerate_counts_them(measured: dict[str, Any]) -> None:
    """`accelerate estimate-memory` builds the model on the meta device and multiplies."""
    for name, count in measured["parameters"].items():
        made = plan(known(name), load_in_4bit=False)
        assert part(made, "weights") + part(made, "embeddings and head") == pytest.approx(2 * count, rel=0.05)
        assert known(name).parameters == count


def test_what_a_layer_keeps_is_counted_to_the_byte(measured: dict[str, Any]) -> None:
    for name, config in LAYERS.items():
        model = from_config({**config, "num_hidden_layers": 2}, name, "a test")
        for packed, figures in ((True, measured["packed"][name]), (False, measured["fp32"][name])):
            recipe = dataclasses.replace(QLORA, load_in_4bit=packed)
            layer = layer_bytes(model, recipe, StartAdapter(16))
            assert layer == figures["layer"]
            assert model.hidden * 2 == figures["checkpoint"]
            working = layer + passing_bytes(model, recipe)
            assert figures["working"] <= working <= 1.15 * figures["working"]


def test_a_tile_of_the_head_and_a_packed_weight_take_what_is_said(measured: dict[str, Any]) -> None:
    assert measured["tile"] == pytest.approx(31, rel=0.01)
    assert measured["nf4"] == pytest.approx(0.516, rel=0.01)


def command(home: Path, *argv: str) -> Result:
    return CliRunner().invoke(cli, ["--home", str(home), *argv])


def test_the_requests_run_is_refused_and_the_recipe_that_is_offered_is_accepted(tmp_path: Path) -> None:
    asked = ("--base_model", CODER, "--lora_r", "64", "--batch_size", "4", "--fp16")
    refused = command(tmp_path, "train", "plan", *asked, "--vram-gib", "16")
    assert refused.exit_code == 3, refused.output
    assert "does not fit" in refused.stdout
    offered = shlex.split(refused.stdout.strip().splitlines()[-1])
    assert {"--load_in_4bit", "--bf16", "--gradient_checkpointing"} <= set(offered)
    assert offered[offered.index("--lora_r") + 1] == "64"
    assert offered[:2] == ["--base_model", CODER]
    accepted = command(tmp_path, "--json", "train", "plan", *offered, "--vram-gib", "16")
    assert accepted.exit_code == 0, accepted.output
    document = json.loads(accepted.stdout)
    assert document["fits"] is True
    assert document["advice"] is None
    refused_too = command(tmp_path, "--json", "train", "plan", *asked, "--vram-gib", "16")
    advice = json.loads(refused_too.stdout)["advice"]
    assert advice["flags"] == offered
    assert advice["total_bytes"] == document["total_bytes"]
    assert sum(one["bytes"] for one in document["parts"]) == document["total_bytes"]


def test_the_nearest_recipe_changes_no_more_than_it_must() -> None:
    model = known(CODER)
    asked = SftRecipe(
        output_dir="o", base_model="b", dataset="d", fp16=True, lora_r=64, gradient_accumulation_steps=1
    )

    def changed(gib: float, **more: Any) -> set[str]:
        advice = nearest_fit(plan(model, asked, gib=gib, **more))
        assert advice is not None
        assert advice.plan.fits
        return {change.field for change in advice.changes}

    assert changed(80) == {"load_in_4bit", "fp16", "bf16"}
    assert changed(48) == {"gradient_checkpointing"}  # 4 bits alone are not enough, and then not needed
    assert changed(24) == {"gradient_checkpointing", "load_in_4bit", "fp16", "bf16"}
    assert changed(16) >= {"batch_size", "gradient_accumulation_steps"}
    # One sample and a smaller card: no batch to make smaller, so samples get shorter before the rank gets lower.
    assert changed(14, batch_size=1, max_length=2048) >= {"max_length", "load_in_4bit"}
    assert "lora_r" not in changed(14, batch_size=1, max_length=2048)
    assert changed(11.7, batch_size=1, max_length=256) >= {"lora_r", "lora_alpha"}
    assert nearest_fit(plan(model, asked, gib=10)) is None


def test_a_smaller_batch_keeps_the_effective_one() -> None:
    advice = nearest_fit(plan(known(CODER), lora_r=64, batch_size=6, gradient_accumulation_steps=2))
    assert advice is not None
    recipe = advice.plan.recipe
    assert recipe.batch_size * recipe.gradient_accumulation_steps == 12
    assert advice.flags == ("--batch_size", str(recipe.batch_size),
                            "--gradient_accumulation_steps", str(recipe.gradient_accumulation_steps))  # fmt: skip


def test_a_pair_is_two_sequences_and_a_started_adapter_has_a_frozen_copy() -> None:
    model = known("Qwen/Qwen2.5-7B")
    alone, pairs = plan(model), plan(model, PAIRS, lora_dropout=0.0)
    assert part(pairs, "activations") == 2 * part(alone, "activations")
    assert "reference adapter" not in [one.name for one in pairs.parts]
    started = make_plan(model, PAIRS, 16 * GIB, start=StartAdapter(64))
    assert part(started, "reference adapter") == 4 * model.adapter_parameters(64)
    assert part(started, "adapter") == 2 * model.adapter_parameters(64)


def test_the_presets_fit_the_cards_they_are_for(ws: Workspace) -> None:
    model = known(CODER)
    for name, preset in presets(ws).items():
        gib = next((int(size) for size in ("16", "24", "80") if f"{size}gb" in name), None)
        if gib is None:
            continue
        recipe = dataclasses.replace(QLORA if preset.kind == "sft" else PAIRS, **preset.values)
        assert plan(model, recipe, gib=gib).fits, name
    assert recipe_values(ws, "sft", "qlora-16gb", {})["load_in_4bit"] is True


async def test_a_local_config_wins_over_the_shipped_figures(ws: Workspace, small_model: Path) -> None:
    dimensions, start = await describe_model(ws, None, await resolve(ws, f"path:{small_model}"))
    assert (dimensions.hidden, dimensions.layers, start) == (64, 2, None)
    assert dimensions.source == f"{small_model}/config.json"
    ws.config.mkdir(parents=True, exist_ok=True)
    (ws.config / "models.toml").write_text(
        '[[model]]\nnames = ["me/mine"]\nmodel_type = "llama"\nhidden_size = 64\nnum_hidden_layers = 3\n'
        "num_attention_heads = 4\nintermediate_size = 128\nvocab_size = 100\n"
    )
    assert known("me/mine", ws).layers == 3
    assert known("other/Qwen2.5-7B", ws).layers == 28
    with pytest.raises(UnknownModel, match="the dimensions of me/other are not known here"):
        known("me/other", ws)
    with pytest.raises(UnknownModel, match="model_type 'mamba', which the planner does not know"):
        from_config({"model_type": "mamba"}, "m", "its config")


async def test_an_adapter_counts_with_its_own_rank(ws: Workspace, small_adapter: Path) -> None:
    dimensions, start = await describe_model(ws, None, await resolve(ws, f"path:{small_adapter}"))
    assert start is not None
    assert (start.rank, dimensions.hidden) == (4, 64)
    made, advice, _ = await plan_run(ws, "dpo", {"lora_r": 64}, f"path:{small_adapter}", vram_gib=8)
    assert (made.fits, advice) == (True, None)
    assert part(made, "reference adapter") == 4 * dimensions.adapter_parameters(4, start.targets)


def test_flags_leave_out_what_is_the_default() -> None:
    assert as_flags(QLORA) == (
        "--lora_dropout", "0.0", "--batch_size", "1", "--bf16", "--gradient_checkpointing", "--load_in_4bit",
    )  # fmt: skip


def card(folder: Path, mebibytes: int) -> Path:
    """A Python for a host with one card of that size, as its nvidia-smi says."""
    folder.mkdir()
    smi, python = folder / "nvidia-smi", folder / "python"
    smi.write_text(
        '#!/bin/sh\ncase "$*" in *-lms*|*--loop-ms*) while :; do\n'
        f"echo '1, 0, NVIDIA RTX 5060 Ti, 5, 900, {mebibytes}, 40, 80.5'; sleep 0.2; done;;\n"
        "*) echo 'NVIDIA RTX 5060 Ti';; esac\n"
    )
    python.write_text(f'#!/bin/sh\nPATH="{folder}:$PATH" exec {sys.executable} "$@"\n')
    smi.chmod(0o755)
    python.chmod(0o755)
    return python


async def test_a_launch_that_cannot_fit_is_refused_before_anything_is_copied(
    ws: Workspace, small_model: Path, tmp_path: Path
) -> None:
    python = card(tmp_path / "bin", 16_311)
    add_host(ws, "box", HostSettings(kind="local", root=str(tmp_path / "root"), python=str(python)))
    data = str(write_rows(tmp_path / "sums"))
    values = {"base_model": f"hub:{CODER}", "lora_r": 64, "fp16": True}
    with pytest.raises(DoesNotFit, match=r"NVIDIA RTX 5060 Ti on box gives 15\.0 GiB") as refused:
        await start_sft(ws, "box", values, dataset=data)
    assert "load_in_4bit: False -> True" in str(refused.value)
    assert "--load_in_4bit" in str(refused.value)
    assert refused.value.exit_code == 3
    assert await runs.every(ws.db) == []
    assert not (tmp_path / "root" / "datasets").exists()
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    with pytest.raises(DoesNotFit):
        await start_dpo(ws, "box", {}, sft_model=f"hub:{CODER}", preference_data=pairs)


async def test_what_a_run_took_corrects_the_next_prediction_of_its_host(
    ws: Workspace, small_model: Path, tmp_path: Path
) -> None:
    python = card(tmp_path / "bin", 64)
    add_host(ws, "tiny", HostSettings(kind="local", root=str(tmp_path / "root"), python=str(python)))
    data = str(write_rows(tmp_path / "sums"))
    # The optimizer of a card: without one (this nvidia-smi has no driver behind it) the plain one stands in.
    values = {**SHORT, "base_model": f"path:{small_model}", "max_steps": 1, "optim": "paged_adamw_8bit"}
    with pytest.raises(DoesNotFit, match="take a smaller model or a larger card"):
        await start_sft(ws, "tiny", values, dataset=data)
    run = await start_sft(ws, "tiny", values, dataset=data, name="big", allow_oversize=True)
    job = await wait_for(ws, str(run.job_id))
    assert job.state == "done", job.error
    kept = await memory_plans.peaks(ws.db, "tiny")
    assert [(peak.run, peak.measured, peak.card) for peak in kept] == [("big", None, 64)]
    predicted = round(kept[0].predicted * 2**20)
    assert await correction_for(ws, "tiny", predicted) == 1
    async with ws.db.transaction() as transaction:
        for step, took in ((1, 0.5), (2, 1.25), (3, 1.0)):
            figures: list[tuple[str, float | None]] = [("peak_memory_mib", took * kept[0].predicted)]
            await jobs.put_metrics(transaction, str(run.job_id), step, figures)
    assert await correction_for(ws, "tiny", predicted) == pytest.approx(1.25)
    memory = (await show_run(ws, "big")).memory
    assert memory is not None
    assert memory.measured == pytest.approx(1.25 * memory.predicted)
    assert await correction_for(ws, "tiny", 5 * predicted) == 1  # a small model says little of a large one
    assert await correction_for(ws, "local", predicted) == 1
    made, _, found = await plan_run(ws, "sft", values, f"path:{small_model}", host="tiny")
    assert made.correction == pytest.approx(1.25)
    assert made.total == round(made.predicted * made.correction) + GIB
    assert found.bytes == 64 * 2**20
