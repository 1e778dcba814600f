"""Supervised fine-tuning: it learns, stops and goes on without a trace, and refuses what cannot work."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import pytest

from backend.contract.events import Checkpoint, Done, Metrics, Warned
from backend.worker.checkpoints import newest_complete
from tests.worker.conftest import Ran, Run, reversals, start_worker, told, write_rows

STEPS = {"batch_size": 4, "gradient_accumulation_steps": 1, "lora_dropout": 0, "max_length": 96}
QUICK = {**STEPS, "learning_rate": 5e-3, "max_steps": 16, "save_steps": 8, "eval_steps": 8}


def test_training_lowers_the_loss_and_plain_peft_loads_the_result(
    worker: Run, small_model: Path, dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    ran = worker("sft", base_model=small_model, dataset=dataset, output_dir=out, **QUICK)
    assert ran.code == 0
    assert ran.started.total_steps == 16
    assert (ran.started.train_samples, ran.started.eval_samples) == (32, 8)
    assert list(ran.losses) == list(range(1, 17))
    assert ran.losses[16] < ran.losses[1] - 0.2
    evaluations = [metrics.eval_loss for metrics in ran.of(Metrics) if metrics.eval_loss is not None]
    assert len(evaluations) == 2
    assert evaluations[1] < evaluations[0]
    step = ran.of(Metrics)[3]
    assert None not in (step.learning_rate, step.grad_norm, step.tokens_per_second, step.step_time_s)
    assert [checkpoint.step for checkpoint in ran.of(Checkpoint)] == [8, 16]
    assert ran.of(Done)[0].artifact == str(out / "final")

    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    model = AutoPeftModelForCausalLM.from_pretrained(out / "final")
    tokenizer = AutoTokenizer.from_pretrained(out / "final")
    assert model.peft_config["default"].r == 16
    assert tokenizer.chat_template
    notes = json.loads((out / "final" / "recipe.json").read_text())
    assert notes["parameters"]["learning_rate"] == 5e-3
    assert notes["samples"] == 32


def test_a_stop_signal_saves_and_the_resumed_run_is_the_unbroken_one(
    worker: Run, small_model: Path, dataset: Path, tmp_path: Path
) -> None:
    recipe = {"base_model": small_model, "dataset": dataset, **STEPS, "max_steps": 24, "seed": 7}
    unbroken = worker("sft", output_dir=tmp_path / "unbroken", events="unbroken.jsonl", **recipe)

    out, events = tmp_path / "broken", tmp_path / "first.jsonl"
    process = start_worker("sft", events, output_dir=out, save_steps=1000, **recipe)
    try:
        _wait_for_step(events, 3)
        process.send_signal(signal.SIGTERM)
        log, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143, log
    first = Ran(143, told(events))
    assert (first.failed.code, first.failed.resumable) == ("stopped", True)
    stopped_at = max(first.losses)
    assert first.of(Checkpoint)[-1].step == stopped_at < 24

    second = worker("sft", output_dir=out, events="second.jsonl", flags=["--resume"], **recipe)
    assert second.code == 0
    assert second.started.resumed_step == stopped_at
    together = first.losses | second.losses
    assert together == pytest.approx(unbroken.losses, rel=1e-3)


def test_a_checkpoint_that_a_crash_cut_short_is_passed_over(
    worker: Run, small_model: Path, dataset: Path, tmp_path: Path
) -> None:
    recipe = {"base_model": small_model, "dataset": dataset, "output_dir": tmp_path / "run", **STEPS}
    assert worker("sft", **recipe, max_steps=6, save_steps=2).code == 0
    newest = tmp_path / "run" / "checkpoints" / "checkpoint-6"
    (newest / "trainer_state.json").unlink()
    weights = newest.with_name("checkpoint-4") / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert newest_complete(newest.parent) == newest.with_name("checkpoint-2")

    ran = worker("sft", **recipe, max_steps=8, flags=["--resume"])
    assert ran.code == 0
    assert ran.started.resumed_step == 2
    assert [warned.code for warned in ran.of(Warned)] == ["incomplete_checkpoint"] * 2


def test_a_new_run_does_not_mix_with_an_earlier_one(
    worker: Run, small_model: Path, dataset: Path, tmp_path: Path
) -> None:
    (tmp_path / "run" / "checkpoints" / "checkpoint-5").mkdir(parents=True)
    ran = worker("sft", base_model=small_model, dataset=dataset, output_dir=tmp_path / "run", **QUICK)
    assert (ran.code, ran.failed.code) == (2, "output_in_use")


def test_answers_that_never_end_are_refused_before_training(
    worker: Run, small_model: Path, dataset: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(small_model, tmp_path / "base")
    config = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps({**config, "eos_token": "<|endoftext|>"}))
    generation = json.loads((base / "generation_config.json").read_text())
    (base / "generation_config.json").write_text(json.dumps({**generation, "eos_token_id": 0}))
    ran = worker("sft", base_model=base, dataset=dataset, output_dir=tmp_path / "run", **QUICK)
    assert (ran.code, ran.failed.code) == (2, "eos_not_trained")
    assert "<|endoftext|>" in ran.failed.message


def test_what_max_length_cuts_is_told(worker: Run, small_model: Path, tmp_path: Path) -> None:
    long = [{"instruction": "Say it.", "output": "lda " * 80}, {"instruction": "sta " * 80, "output": "yes"}]
    data = write_rows(tmp_path / "train.jsonl", reversals(6, seed=1) + long)
    recipe = {**QUICK, "max_steps": 1, "max_length": 64}
    ran = worker("sft", base_model=small_model, dataset=data, output_dir=tmp_path / "run", **recipe)
    assert ran.code == 0
    dropped, cut = ran.of(Warned)
    assert (dropped.code, cut.code) == ("dropped", "eos_not_trained")
    assert dropped.message.startswith("1 of 8 rows")
    assert cut.message.startswith("1 of 7 checked rows train no end token, 1 of them cut")

    data = write_rows(tmp_path / "none.jsonl", long[1:])
    ran = worker("sft", base_model=small_model, dataset=data, output_dir=tmp_path / "none", **recipe)
    assert (ran.code, ran.failed.code) == (2, "nothing_to_train")


def test_a_loss_that_is_no_number_ends_the_run(
    worker: Run, small_model: Path, dataset: Path, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    base = shutil.copytree(small_model, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], float("nan"))
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    ran = worker("sft", base_model=base, dataset=dataset, output_dir=tmp_path / "run", **QUICK)
    assert (ran.code, ran.failed.code) == (1, "diverged")
    assert ran.of(Checkpoint) == []
    assert "learning_rate" in ran.failed.remedy


def test_broken_rows_are_refused_with_their_lines(worker: Run, small_model: Path, tmp_path: Path) -> None:
    data = tmp_path / "train.jsonl"
    good = json.dumps(reversals(1, seed=1)[0])
    data.write_text(
        "\n".join([good, '{"instruction": "x"', good, '{"instruction": "x", "output": ""}', good])
    )
    ran = worker("sft", base_model=small_model, dataset=data, output_dir=tmp_path / "run", **QUICK)
    assert (ran.code, ran.failed.code) == (2, "broken_data")
    assert f"{data}: 2 of 5 rows" in ran.failed.message
    assert "line 2: not JSON at column" in ran.failed.message
    assert "line 4: output is empty" in ran.failed.message


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"dataset": "nowhere"}, "missing_data"),
        ({"base_model": "/nowhere/model"}, "unknown_model"),
        ({"base_model": "hub:nobody/nothing"}, "unknown_model"),
        ({"lora_r": 0}, "bad_parameters"),
    ],
)
def test_what_is_not_there_is_refused_with_a_remedy(
    worker: Run, small_model: Path, dataset: Path, tmp_path: Path, wrong: dict[str, str], code: str
) -> None:
    given = {"base_model": small_model, "dataset": dataset, "output_dir": tmp_path / "run", **QUICK}
    ran = worker("sft", **{**given, **wrong})
    assert (ran.code, ran.failed.code) == (2, code)
    assert ran.failed.remedy


def test_an_adapter_cannot_be_the_base(
    worker: Run, small_adapter: Path, dataset: Path, tmp_path: Path
) -> None:
    ran = worker("sft", base_model=small_adapter, dataset=dataset, output_dir=tmp_path / "run", **QUICK)
    assert (ran.code, ran.failed.code) == (2, "adapter_as_base")


def _wait_for_step(events: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if events.exists() and max(Ran(0, told(events)).losses, default=0) >= step:
            return
        time.sleep(0.02)
    raise AssertionError(f"no step {step} in {events}")
