"""Preference fine-tuning: from the adapter with its frozen copy as reference, and from a whole model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from backend.contract.events import Metrics, Warned
from tests.worker.conftest import Run, write_rows

STEPS: dict[str, Any] = {
    "batch_size": 4,
    "gradient_accumulation_steps": 1,
    "lora_dropout": 0,
    "learning_rate": 1e-2,
    "max_steps": 6,
    "warmup_steps": 0,
    "max_length": 96,
}


def test_the_margin_rises_from_zero_and_only_the_policy_is_kept(
    worker: Run, small_adapter: Path, pairs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    ran = worker("dpo", sft_model=small_adapter, preference_data=pairs, output_dir=out, **STEPS)
    assert ran.code == 0
    margins = [metrics.rewards_margin for metrics in ran.of(Metrics)]
    # The reference is the adapter itself, so before the first step nothing sets the two apart.
    assert margins[0] == 0
    assert margins[-1] is not None
    assert margins[-1] > 0.02
    last = ran.of(Metrics)[-1]
    assert None not in (last.rewards_chosen, last.rewards_rejected, last.rewards_accuracy, last.logps_chosen)
    assert {path.name for path in (out / "final").iterdir()} >= {"adapter_model.safetensors", "recipe.json"}
    assert not (out / "final" / "ref").exists()

    from peft import AutoPeftModelForCausalLM

    model = AutoPeftModelForCausalLM.from_pretrained(out / "final")
    assert list(model.peft_config) == ["default"]
    assert model.peft_config["default"].r == 4  # the adapter went on; the recipe's lora_r is for fresh ones


def test_resuming_keeps_the_reference_where_the_run_began(
    worker: Run, small_adapter: Path, pairs: Path, tmp_path: Path
) -> None:
    given = {"sft_model": small_adapter, "preference_data": pairs, "save_steps": 3, **STEPS}
    unbroken = worker("dpo", output_dir=tmp_path / "run", **given)
    (tmp_path / "run" / "checkpoints" / "checkpoint-6" / "optimizer.pt").unlink()
    resumed = worker("dpo", output_dir=tmp_path / "run", flags=["--resume"], **given)
    assert resumed.started.resumed_step == 3
    expected = {metrics.step: metrics.rewards_margin for metrics in unbroken.of(Metrics)}
    for metrics in resumed.of(Metrics):
        assert metrics.rewards_margin is not None
        assert abs(metrics.rewards_margin - (expected[metrics.step] or 0)) < 1e-3


def test_a_whole_model_gets_a_fresh_adapter(
    worker: Run, small_model: Path, pairs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    faster = {**STEPS, "learning_rate": 2e-2}  # the adapter starts at zero
    ran = worker("dpo", sft_model=small_model, preference_data=pairs, output_dir=out, lora_r=8, **faster)
    assert ran.code == 0
    assert json.loads((out / "final" / "adapter_config.json").read_text())["r"] == 8
    margins = [metrics.rewards_margin for metrics in ran.of(Metrics)]
    assert margins[0] == 0
    assert (margins[-1] or 0) > 0.02


def test_a_pair_that_teaches_nothing_is_refused_by_its_line(
    worker: Run, small_adapter: Path, tmp_path: Path
) -> None:
    rows = [{"prompt": "Q", "chosen": "A", "rejected": "B"}, {"prompt": "Q", "chosen": "A", "rejected": "A"}]
    data = write_rows(tmp_path / "bad.jsonl", rows)
    ran = worker("dpo", sft_model=small_adapter, preference_data=data, output_dir=tmp_path / "run", **STEPS)
    assert (ran.code, ran.failed.code) == (2, "broken_data")
    assert "line 2: chosen and rejected are the same" in ran.failed.message


def test_what_max_length_cuts_is_told_and_nothing_left_is_refused(
    worker: Run, small_adapter: Path, tmp_path: Path
) -> None:
    rows = [
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        {"prompt": "Q", "chosen": "lda " * 90, "rejected": "B"},
        {"prompt": "sta " * 90, "chosen": "A", "rejected": "B"},
    ]
    given = {"sft_model": small_adapter, **STEPS, "max_length": 64, "max_steps": 1}
    data = write_rows(tmp_path / "long.jsonl", rows)
    ran = worker("dpo", preference_data=data, output_dir=tmp_path / "run", **given)
    assert [warned.message.split(";")[0] for warned in ran.of(Warned)] == [
        "1 of 3 rows: their prompt fills max_length",
        "max_length cuts 1 of 2 checked pairs",
    ]
    data = write_rows(tmp_path / "none.jsonl", rows[2:])
    ran = worker("dpo", preference_data=data, output_dir=tmp_path / "none", **given)
    assert (ran.code, ran.failed.code) == (2, "nothing_to_train")
