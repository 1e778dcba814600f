"""Renders prompts for a model exactly as they are rendered for training, and knows where answers end."""

from __future__ import annotations

from typing import Any

from backend.contract.rows import Messages


def as_text(prompt: Messages) -> str:
    """A prompt for a model without a chat template: the messages' text, and a new line before the answer."""
    return "\n\n".join(message["content"] for message in prompt) + "\n"


def render_prompt(tokenizer: Any, prompt: Messages) -> list[int]:
    """Token ids of a prompt, ready for the answer's first token."""
    if not tokenizer.chat_template:
        return list(tokenizer(as_text(prompt))["input_ids"])
    text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def render_answered(tokenizer: Any, prompt: Messages, completion: Messages) -> list[int]:
    """Token ids of a prompt with its answer and what the template closes it with."""
    if not tokenizer.chat_template:
        text = as_text(prompt) + completion[-1]["content"] + tokenizer.eos_token
        return list(tokenizer(text)["input_ids"])
    text = tokenizer.apply_chat_template(prompt + completion, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Token ids at which generation stops."""
    named = model.generation_config.eos_token_id
    several = named if isinstance(named, list) else [named]
    return {token for token in (*several, tokenizer.eos_token_id) if token is not None}
