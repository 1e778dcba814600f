"""Preference fine-tuning: TRL's DPOTrainer, from an SFT adapter or with a fresh one on a whole model."""

from __future__ import annotations

import sys
from typing import Any

from backend.contract.events import Done
from backend.contract.recipe import DpoRecipe
from backend.contract.rows import Messages, preference_messages
from backend.worker.data import eval_file, read_rows, sha256, train_file
from backend.worker.models import ModelSource, attach_adapter, find_model, load_base, load_tokenizer
from backend.worker.preflight import check_pairs
from backend.worker.run import Session, run
from backend.worker.text import as_text
from backend.worker.tuning import (
    Prepared,
    checkpoint_to_resume,
    fresh_adapter,
    precision,
    train,
    training_arguments,
)

Pair = tuple[Messages, Messages, Messages]


def work(recipe: DpoRecipe, session: Session) -> Done:
    """Trains the adapter on pairs as the recipe says; `final/` is what it makes.

    The reference is what the run starts from: a frozen copy of the SFT adapter, or the model without the
    fresh adapter.

    Raises:
        Refused: the pairs, the model or the output folder cannot be used.
        Stopped: a stop signal came and a checkpoint was written.
    """
    data = train_file(recipe.preference_data)
    held_out = eval_file(recipe.preference_data, recipe.eval_dataset)
    pairs = read_rows(data, preference_messages)
    eval_pairs = read_rows(held_out, preference_messages) if held_out else []
    source = find_model(recipe.sft_model, recipe.base_model)
    resume_from = checkpoint_to_resume(recipe, session)

    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    tokenizer = load_tokenizer(source)
    dtype, bf16 = precision(recipe, session)
    arguments = training_arguments(recipe, bool(eval_pairs), bf16)
    trainer = DPOTrainer(
        model=_policy(source, dtype, recipe),
        args=DPOConfig(**arguments, beta=recipe.beta),
        train_dataset=Dataset.from_list(_columns(pairs, tokenizer, session)),
        eval_dataset=Dataset.from_list(_columns(eval_pairs, tokenizer, session)) if eval_pairs else None,
        processing_class=tokenizer,
        peft_config=None if source.adapter else fresh_adapter(recipe),
    )
    check_pairs(trainer, len(pairs), session)
    prepared = Prepared("dpo", source, sha256(data), len(pairs))
    return train(trainer, recipe, prepared, session, resume_from)


def _policy(source: ModelSource, dtype: Any, recipe: DpoRecipe) -> Any:
    model = load_base(source, dtype, recipe.load_in_4bit)
    return attach_adapter(model, source.adapter, trainable=True) if source.adapter else model


def _columns(pairs: list[Pair], tokenizer: Any, session: Session) -> list[dict[str, Any]]:
    """Pairs in TRL's columns; as plain text where the model has no chat template."""
    if tokenizer.chat_template:
        return [{"prompt": prompt, "chosen": good, "rejected": bad} for prompt, good, bad in pairs]
    session.warn("no_chat_template", "the model has no chat template", "prompts are given as plain text")
    return [
        {"prompt": as_text(prompt), "chosen": good[-1]["content"], "rejected": bad[-1]["content"]}
        for prompt, good, bad in pairs
    ]


def main(argv: list[str] | None = None) -> int:
    """`python -m backend.worker.dpo`."""
    return run("dpo", work, argv)


if __name__ == "__main__":
    sys.exit(main())
