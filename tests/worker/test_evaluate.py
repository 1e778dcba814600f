"""Evaluation: each item once, answers that do not depend on their batch, perplexities by their conventions."""

from __future__ import annotations

import json
import math
import shutil
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest

from backend.contract.events import Candidate, Item, Perplexity
from backend.worker.perplexity import log_likelihoods, rolling_windows, stride_windows, words
from tests.worker.conftest import Ran, Run, reversals, start_worker, told, write_rows


def test_answers_do_not_depend_on_the_batch(
    worker: Run, small_adapter: Path, items: Path, tmp_path: Path
) -> None:
    given = {"model": small_adapter, "items": items, "max_new_tokens": 8}
    alone = worker("evaluate", output_dir=tmp_path / "one", batch_size=1, **given)
    together = worker("evaluate", output_dir=tmp_path / "two", batch_size=4, **given)
    answers = {item.id: item.answer for item in alone.of(Item)}
    assert len(answers) == 10
    assert {item.id: item.answer for item in together.of(Item)} == answers
    first = alone.of(Item)[0]
    assert (first.benchmark, first.family, first.category) == ("reverse", "reverse", "words")
    rows = [json.loads(line) for line in (tmp_path / "one" / "answers.jsonl").read_text().splitlines()]
    assert {row["id"]: row["answer"] for row in rows} == answers


def test_a_stopped_evaluation_goes_on_and_tells_each_item_once(
    small_model: Path, items: Path, tmp_path: Path
) -> None:
    events = tmp_path / "events.jsonl"
    given = {"model": small_model, "items": items, "max_new_tokens": 400, "batch_size": 1}
    process = start_worker("evaluate", events, output_dir=tmp_path / "out", **given)
    try:
        _wait_for_items(events, 2)
        process.send_signal(signal.SIGTERM)
        log, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143, log
    before = Ran(143, told(events))
    assert before.failed.resumable
    assert 2 <= len(before.of(Item)) < 10

    process = start_worker("evaluate", events, output_dir=tmp_path / "out", resume=True, **given)
    log, _ = process.communicate(timeout=120)
    assert process.returncode == 0, log
    items_told = [item.id for item in Ran(0, told(events)).of(Item)]
    assert sorted(items_told) == sorted(f"item-{number}" for number in range(10))


def test_ids_in_the_done_file_are_passed_over(
    worker: Run, small_model: Path, items: Path, tmp_path: Path
) -> None:
    (tmp_path / "done").write_text("reverse/item-3\nreverse/item-7\nother/item-1\n")
    ran = worker(
        "evaluate",
        model=small_model,
        items=items,
        done=tmp_path / "done",
        output_dir=tmp_path,
        max_new_tokens=2,
    )
    assert len(ran.of(Item)) == 8
    assert not {"item-3", "item-7"} & {item.id for item in ran.of(Item)}


def test_perplexities_agree_with_the_plain_formula(worker: Run, small_model: Path, tmp_path: Path) -> None:
    rows = reversals(5, seed=9)
    heldout = write_rows(tmp_path / "heldout.jsonl", rows)
    ran = worker("evaluate", model=small_model, heldout=heldout, output_dir=tmp_path, max_length=7, stride=3)
    (found,) = ran.of(Perplexity)

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(small_model)
    tokenizer = AutoTokenizer.from_pretrained(small_model)

    def score(ids: list[int], scored: int) -> float:
        """Sum of log p(token | before) over the last `scored` tokens."""
        with torch.inference_mode():
            logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return sum(float(logs[at - 1, ids[at]]) for at in range(len(ids) - scored, len(ids)))

    texts = [f"{row['instruction']}\n\n{row['input']}\n\n{row['output']}" for row in rows]
    rolling = 0.0
    for text in texts:
        x = [tokenizer.bos_token_id, *tokenizer.encode(text)]
        for end in [*range(7, len(x) - 1, 7), len(x) - 1]:
            scored = (end - 1) % 7 + 1
            rolling += score(x[max(0, end - 7) : end + 1] if end > 7 else x[: end + 1], scored)
    assert found.word_rolling == pytest.approx(math.exp(-rolling / sum(map(words, texts))), rel=1e-3)
    assert found.byte_rolling == pytest.approx(math.exp(-rolling / sum(map(len, texts))), rel=1e-4)

    completion, tokens, losses = 0.0, 0, []
    for row in rows:
        prompt = [{"role": "user", "content": f"{row['instruction']}\n\n{row['input']}"}]
        given = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(given, add_special_tokens=False)["input_ids"]
        answer = tokenizer(row["output"] + "<|im_end|>\n", add_special_tokens=False)["input_ids"]
        total = score(ids + answer, len(answer))
        completion, tokens, losses = completion + total, tokens + len(answer), [*losses, -total / len(answer)]
    assert found.completion_tokens == tokens
    assert found.completion == pytest.approx(math.exp(-completion / tokens), rel=1e-4)
    assert found.completion_losses == pytest.approx(losses, rel=1e-4)


@pytest.mark.parametrize("length", [1, 2, 5, 16, 100])
@pytest.mark.parametrize("count", [1, 5, 6, 16, 17])
def test_windows_score_every_token_once_within_their_length(length: int, count: int) -> None:
    ids = list(range(100, 100 + count))
    for windows in (
        rolling_windows(0, ids, 1, length),
        stride_windows(0, ids, 1, length, max(1, length // 2)),
    ):
        assert [token for window in windows for token in window.ids[-window.scored :]] == ids
        assert all(window.scored < len(window.ids) <= length + 1 for window in windows)
        assert all(after - before == 1 for window in windows for before, after in pairwise(window.ids[1:]))


def test_a_window_of_the_whole_context_fits_into_it() -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    # Learned positions end hard: one token more than the context is an error.
    model = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_positions=8, n_embd=8, n_layer=1, n_head=2)).eval()
    ids = [n % 40 for n in range(3, 32)]
    sums = log_likelihoods(model, rolling_windows(0, ids, 1, 8), pad=0)
    with torch.inference_mode():
        logs = model(torch.tensor([[1, *ids[:7]]])).logits[0].log_softmax(-1)
    assert sums[0] == pytest.approx(sum(float(logs[at, ids[at]]) for at in range(8)), rel=1e-5)
    assert len(sums) == 4


def test_weights_that_are_pickles_are_not_loaded(
    worker: Run, small_model: Path, small_adapter: Path, items: Path, tmp_path: Path
) -> None:
    import torch

    model = shutil.copytree(small_model, tmp_path / "model")
    (model / "model.safetensors").unlink()
    torch.save({}, model / "pytorch_model.bin")
    adapter = shutil.copytree(small_adapter, tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").unlink()
    torch.save({}, adapter / "adapter_model.bin")
    for pickled in (model, adapter):
        ran = worker("evaluate", model=pickled, items=items, output_dir=tmp_path / pickled.name)
        assert (ran.code, ran.failed.code) == (2, "unknown_model")
        assert "safetensors" in ran.failed.message


def test_items_with_one_id_twice_are_refused(worker: Run, small_model: Path, tmp_path: Path) -> None:
    row = {"id": "a", "instruction": "Q", "output": "A"}
    items = write_rows(tmp_path / "twice.jsonl", [row, row])
    ran = worker("evaluate", model=small_model, items=items, output_dir=tmp_path)
    assert (ran.code, ran.failed.code) == (2, "broken_data")
    assert "line 2: the id a is there already" in ran.failed.message


def test_candidates_are_as_many_as_asked_and_the_same_for_one_seed(
    worker: Run, small_model: Path, items: Path, tmp_path: Path
) -> None:
    given = {"model": small_model, "prompts": items, "candidates_per_prompt": 3, "max_new_tokens": 6}
    once = worker("candidates", output_dir=tmp_path / "one", **given)
    again = worker("candidates", output_dir=tmp_path / "two", **given)
    assert once.code == 0
    assert len(once.of(Candidate)) == 30
    assert {(found.prompt_id, found.index) for found in once.of(Candidate)} == {
        (f"item-{number}", index) for number in range(10) for index in range(3)
    }
    assert once.of(Candidate) == again.of(Candidate)
    assert len({found.answer for found in once.of(Candidate)}) > 20


def _wait_for_items(events: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if events.exists() and len(Ran(0, told(events)).of(Item)) >= count:
            return
        time.sleep(0.02)
    raise AssertionError(f"not {count} items in {events}")
