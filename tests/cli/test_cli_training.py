"""A run from the command line, for real: on a model of two layers, through a job of this machine."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Cli
from tests.fixtures.small_model import small_model

__all__ = ["small_model"]


def test_a_run_is_trained_read_and_resumed_from_the_command_line(house: Cli, small_model: Path) -> None:
    house("dataset", "build", "set", "--campaign", "pilot")
    run = house.json(
        *("train", "sft", "--dataset", "set", "--base_model", f"path:{small_model}", "--name", "small"),
        *(
            "--max_steps",
            "2",
            "--batch_size",
            "2",
            "--gradient-accumulation-steps",
            "1",
            "--max_length",
            "64",
        ),
    )
    assert {
        "id",
        "kind",
        "state",
        "step",
        "total_steps",
        "loss",
        "eval_loss",
        "checkpoints",
        "output_dir",
    } <= set(run)
    assert (run["id"], run["kind"], run["state"], run["step"], run["total_steps"]) == (
        "small",
        "sft",
        "done",
        2,
        2,
    )
    assert run["recipe"]["batch_size"] == 2
    assert Path(run["output_dir"], "final", "adapter_model.safetensors").is_file()
    assert house.json("train", "show", run["id"])["loss"] == run["loss"]
    assert [one["id"] for one in house.json("train", "list")] == ["small"]
    points = house.json("train", "metrics", "small", "--name", "loss")
    assert [point["step"] for point in points["loss"]] == [1, 2]
    assert house.json("job", "show", run["job_id"])["state"] == "done"
    assert [one["name"] for one in house.json("models", "list")] == ["small"]
    steps = house.json("lineage", "run:small")["steps"]
    assert {"set@1", "pilot"} <= {step["name"] for step in steps}
    assert "run small is done" in house("train", "resume", "small", code=1).err
