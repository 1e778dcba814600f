"""The contract: events survive crashes and NaN, recipes refuse nonsense, every front reads one description."""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from pathlib import Path

import pytest

from backend.contract.bundle import build_bundle
from backend.contract.events import Checkpoint, EventWriter, Failed, Metrics, Perplexity, Progress, parse
from backend.contract.job import EvaluateParameters, JobSpec, spec_from_json, spec_to_json
from backend.contract.options import (
    ParameterError,
    add_arguments,
    describe,
    from_values,
    given_values,
    to_values,
)
from backend.contract.recipe import DpoRecipe, SftRecipe
from backend.contract.rows import RowError, preference_messages, training_messages, user_text

PLACES = {"base_model": "b", "dataset": "d", "output_dir": "o"}


def test_events_come_back_as_they_were_even_without_a_finite_number(tmp_path: Path) -> None:
    told = [
        Metrics(step=1, total_steps=9, loss=math.nan, grad_norm=math.inf),
        Perplexity(documents=2, completion_losses=[1.5, math.nan]),
        Checkpoint(step=1, path="ünïcode\nname"),
    ]
    with EventWriter(tmp_path / "events.jsonl") as events:
        for event in told:
            events.emit(event)
    raw = (tmp_path / "events.jsonl").read_bytes()
    assert b"NaN" not in raw
    assert b"Infinity" not in raw
    first, second, third = (record.event for record in parse(raw).records)
    assert isinstance(first, Metrics)
    assert math.isnan(first.loss or 0)
    assert first.grad_norm == math.inf
    assert second == Perplexity(documents=2, completion_losses=[1.5, None])
    assert third == told[2]


def test_a_line_that_is_still_growing_is_left_for_the_next_read(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    with EventWriter(file) as events:
        events.emit(Progress(what="items", done=1, total=2))
        events.emit(Progress(what="items", done=2, total=2))
    raw = file.read_bytes()
    cut = len(raw) - 7
    first = parse(raw[:cut])
    rest = parse(raw[first.consumed :])
    assert [record.seq for record in first.records + rest.records] == [1, 2]


def test_a_writer_goes_on_after_a_crash_tore_the_last_line(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    with EventWriter(file) as events:
        events.emit(Progress(what="items", done=1, total=2))
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:20])
    with EventWriter(file) as events:
        events.emit(Progress(what="items", done=2, total=2))
    assert file.read_bytes().startswith(whole + whole[:20])  # what a follower may have read stays
    parsed = parse(file.read_bytes())
    assert [record.seq for record in parsed.records] == [1, 2]
    assert len(parsed.malformed) == 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"lora_rank": 8}, "lora_rank: no such parameter"),
        ({"learning_rat": 1e-4}, "did you mean learning_rate?"),
        ({"lora_r": 0}, "lora_r: expected at least 1, found 0"),
        ({"learning_rate": 0}, "learning_rate: expected more than 0, found 0"),
        ({"learning_rate": math.nan}, "learning_rate: expected a finite number"),
        ({"batch_size": 2.5}, "batch_size: expected a whole number, found 2.5"),
        ({"bf16": "yes"}, "bf16: expected true or false, found 'yes'"),
        ({"lr_scheduler": "cosin"}, "lr_scheduler: expected one of cosine"),
        ({"fp16": True, "bf16": True}, "fp16, bf16: both are set"),
        ({"base_model": " "}, "base_model: is empty"),
    ],
)
def test_a_recipe_says_what_is_wrong_with_it(values: dict[str, object], expected: str) -> None:
    with pytest.raises(ParameterError) as raised:
        from_values(SftRecipe, {**PLACES, **values})
    assert expected in str(raised.value)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ParameterError) as raised:
        from_values(DpoRecipe, {"beta": 0, "lora_r": -1})
    assert {problem.split(":")[0] for problem in raised.value.problems} == {
        "beta",
        "lora_r",
        "output_dir",
        "sft_model",
        "preference_data",
    }


def test_the_requests_flags_make_the_same_recipe_as_a_specification() -> None:
    line = (
        "--base_model b --dataset d --output_dir o --lora_r 64 --lora_alpha 128 --batch_size 4 "
        "--gradient_accumulation_steps 4 --learning_rate 2e-4 --num_epochs 3 --fp16 --gradient-checkpointing"
    )
    parser = argparse.ArgumentParser()
    add_arguments(parser, SftRecipe)
    recipe = from_values(SftRecipe, given_values(parser.parse_args(line.split()), SftRecipe))
    assert (recipe.lora_r, recipe.lora_alpha, recipe.fp16, recipe.gradient_checkpointing) == (
        64,
        128,
        True,
        True,
    )
    assert spec_from_json(spec_to_json(JobSpec("sft", recipe))) == JobSpec("sft", recipe)
    assert from_values(SftRecipe, to_values(recipe)) == recipe


def test_every_parameter_explains_itself() -> None:
    for cls in (SftRecipe, DpoRecipe, EvaluateParameters):
        assert all(parameter.help for parameter in describe(cls))
    assert next(one.default for one in describe(DpoRecipe) if one.name == "learning_rate") == 5e-6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "not JSON at line 1"),
        ('{"version": 2, "kind": "sft"}', "version: expected 1, found 2"),
        ('{"version": 1, "kind": "train"}', "kind: expected one of sft"),
        ('{"version": 1, "kind": "sft", "parametres": {}}', "parametres: no such key"),
    ],
)
def test_a_broken_specification_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ParameterError) as raised:
        spec_from_json(text)
    assert expected in str(raised.value)


def test_rows_of_every_shape_become_the_same_messages() -> None:
    answer = [{"role": "assistant", "content": "A"}]
    question = [{"role": "user", "content": "Q\n\nI"}]
    for row in (
        {"instruction": " Q ", "input": "I\n", "output": "A", "_metadata": {"sample_id": "s"}},
        {"messages": question + answer},
        {"prompt": "Q\n\nI", "completion": "A"},
        {"prompt": question, "completion": answer},
    ):
        assert training_messages(row) == (question, answer)
    pair = {"prompt": "Q\n\nI", "chosen": "A", "rejected": [{"role": "assistant", "content": "B"}]}
    assert preference_messages(pair)[:2] == (question, answer)
    assert user_text("Q", "  ") == "Q"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"instruction": "Q", "output": "  "}, "output is empty"),
        ({"output": "A"}, "instruction is missing or empty"),
        ({"text": "A"}, "expected instruction and output"),
        ({"messages": [{"role": "user", "content": "Q"}]}, "end with the assistant's answer"),
        ({"messages": [{"role": "robot", "content": "Q"}]}, "expected messages of role"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(row: dict[str, object], expected: str) -> None:
    with pytest.raises(RowError, match=expected):
        training_messages(row)


def test_a_pair_without_a_difference_is_refused() -> None:
    with pytest.raises(RowError, match="the same"):
        preference_messages({"prompt": "Q", "chosen": "A", "rejected": "A"})


def test_the_bundle_is_the_same_each_time_and_runs_with_nothing_of_ours_installed(tmp_path: Path) -> None:
    bundle = build_bundle(tmp_path / "one")
    again = build_bundle(tmp_path / "two")
    assert (bundle.name, bundle.read_bytes()) == (again.name, again.read_bytes())
    program = (
        "import sys; from backend.worker import sft; "
        "assert sft.__file__.startswith(sys.argv[1]), sft.__file__; "
        "heavy = {'torch', 'transformers', 'pydantic', 'textual', 'remote', 'backend.store'} & set(sys.modules); "
        "assert not heavy, heavy; sft.main(['--help'])"
    )
    ran = subprocess.run(
        [sys.executable, "-P", "-c", program, str(bundle)],
        env={"PYTHONPATH": str(bundle)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert "--lora_r" in ran.stdout


def test_a_host_without_the_training_libraries_is_told_what_to_install(
    tmp_path: Path, small_model: Path, dataset: Path
) -> None:
    """`-S` leaves out everything that is installed, as on a bare host."""
    bundle, events = build_bundle(tmp_path), tmp_path / "events.jsonl"
    recipe = from_values(
        SftRecipe,
        {"base_model": str(small_model), "dataset": str(dataset), "output_dir": str(tmp_path / "run")},
    )
    spec = tmp_path / "spec.json"
    spec.write_text(spec_to_json(JobSpec("sft", recipe)))
    ran = subprocess.run(
        [sys.executable, "-S", *JobSpec("sft", recipe).arguments(str(spec))],
        env={"PYTHONPATH": str(bundle), "HAFS_EVENTS": str(events)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    (record,) = parse(events.read_bytes()).records
    assert isinstance(record.event, Failed)
    assert (ran.returncode, record.event.code) == (2, "no_training_stack"), ran.stderr
    assert "pip install torch" in record.event.remedy
