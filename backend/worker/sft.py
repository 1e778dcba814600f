"""Supervised fine-tuning: TRL's SFTTrainer with a LoRA adapter, trained on the answers only."""

from __future__ import annotations

import sys
from typing import Any

from backend.contract.events import Done
from backend.contract.recipe import SftRecipe
from backend.contract.rows import Messages, training_messages
from backend.worker.data import eval_file, read_rows, sha256, train_file
from backend.worker.models import find_model, load_base, load_tokenizer
from backend.worker.preflight import check_labels
from backend.worker.run import Refused, Session, run
from backend.worker.text import as_text
from backend.worker.tuning import (
    Prepared,
    checkpoint_to_resume,
    fresh_adapter,
    precision,
    train,
    training_arguments,
)


def work(recipe: SftRecipe, session: Session) -> Done:
    """Trains an adapter as the recipe says; `final/` is what it makes.

    Raises:
        Refused: the data, the model or the output folder cannot be used.
        Stopped: a stop signal came and a checkpoint was written.
    """
    data = train_file(recipe.dataset)
    held_out = eval_file(recipe.dataset, recipe.eval_dataset)
    train_rows = read_rows(data, training_messages)
    eval_rows = read_rows(held_out, training_messages) if held_out else []
    source = find_model(recipe.base_model)
    if source.adapter:
        raise Refused(
            "adapter_as_base", f"{source.adapter} is an adapter", "merge it first, or give its base"
        )
    resume_from = checkpoint_to_resume(recipe, session)

    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    tokenizer = load_tokenizer(source)
    dtype, bf16 = precision(recipe, session)
    arguments = training_arguments(recipe, bool(eval_rows), bf16)
    trainer = SFTTrainer(
        model=load_base(source, dtype, recipe.load_in_4bit),
        args=SFTConfig(**arguments, completion_only_loss=True),
        train_dataset=Dataset.from_list(_columns(train_rows, tokenizer, session)),
        eval_dataset=Dataset.from_list(_columns(eval_rows, tokenizer, session)) if eval_rows else None,
        processing_class=tokenizer,
        peft_config=fresh_adapter(recipe),
    )
    check_labels(trainer, len(train_rows), session)
    prepared = Prepared("sft", source, sha256(data), len(train_rows))
    return train(trainer, recipe, prepared, session, resume_from)


def _columns(rows: list[tuple[Messages, Messages]], tokenizer: Any, session: Session) -> list[dict[str, Any]]:
    """Rows in TRL's columns; as plain text where the model has no chat template."""
    if tokenizer.chat_template:
        return [{"prompt": prompt, "completion": completion} for prompt, completion in rows]
    session.warn("no_chat_template", "the model has no chat template", "prompts are given as plain text")
    return [
        {"prompt": as_text(prompt), "completion": completion[-1]["content"]} for prompt, completion in rows
    ]


def main(argv: list[str] | None = None) -> int:
    """`python -m backend.worker.sft`."""
    return run("sft", work, argv)


if __name__ == "__main__":
    sys.exit(main())
