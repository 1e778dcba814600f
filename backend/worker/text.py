"""Renders prompts for a model exactly as they are rendered for training."""

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
