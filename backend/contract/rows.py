"""How a row of a dataset becomes messages: the same text in training, in evaluation and when served.

Rows are `{instruction, input?, output}`, `{messages: [...]}`, `{prompt, completion}` or, for preferences,
`{prompt, chosen, rejected}`, the last two as text or as lists of messages. Other keys are carried past.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Message = dict[str, str]
Messages = list[Message]

ROLES = ("system", "user", "assistant")


class RowError(ValueError):
    """A row that cannot be used, with what is wrong and what was expected."""


def user_text(instruction: str, input: str = "") -> str:
    """What the user says to the model for a sample or a benchmark item: instruction, blank line, input."""
    return f"{instruction.strip()}\n\n{input.strip()}" if input.strip() else instruction.strip()


def prompt_messages(row: Mapping[str, Any]) -> Messages:
    """What the model is given before it answers: the `prompt` (text or messages) or instruction and input.

    Raises:
        RowError: neither is there, or it is empty.
    """
    if "prompt" in row:
        return _as_messages(row["prompt"], "prompt", "user")
    instruction = row.get("instruction")
    if not isinstance(instruction, str) or not instruction.strip():
        raise RowError("instruction is missing or empty")
    given = row.get("input") or ""
    if not isinstance(given, str):
        raise RowError(f"input: expected text, found {type(given).__name__}")
    return [{"role": "user", "content": user_text(instruction, given)}]


def training_messages(row: Mapping[str, Any]) -> tuple[Messages, Messages]:
    """A row of supervised fine-tuning as (prompt, completion); only the completion is trained on.

    Raises:
        RowError: an unknown shape, an empty answer, or a conversation that does not end with the assistant.
    """
    if "messages" in row:
        messages = _as_messages(row["messages"], "messages", "user")
        if len(messages) < 2 or messages[-1]["role"] != "assistant":
            raise RowError("messages must hold a prompt and end with the assistant's answer")
        return messages[:-1], messages[-1:]
    if "completion" in row:
        return prompt_messages(row), _as_messages(row["completion"], "completion", "assistant")
    if "output" in row:
        return prompt_messages(row), _as_messages(row["output"], "output", "assistant")
    raise RowError(f"expected instruction and output, messages, or prompt and completion; found {_keys(row)}")


def preference_messages(row: Mapping[str, Any]) -> tuple[Messages, Messages, Messages]:
    """A preference row as (prompt, chosen, rejected).

    Raises:
        RowError: something is missing or empty, or chosen and rejected are the same.
    """
    missing = [name for name in ("prompt", "chosen", "rejected") if name not in row]
    if missing:
        raise RowError(f"{', '.join(missing)} missing; expected prompt, chosen, rejected; found {_keys(row)}")
    prompt = _as_messages(row["prompt"], "prompt", "user")
    chosen, rejected = (_as_messages(row[name], name, "assistant") for name in ("chosen", "rejected"))
    if chosen == rejected:
        raise RowError("chosen and rejected are the same, so nothing can be learnt from the pair")
    return prompt, chosen, rejected


def _as_messages(value: Any, name: str, role: str) -> Messages:
    """Text becomes one message of the role; a list of messages is checked and kept."""
    if isinstance(value, str):
        if not value.strip():
            raise RowError(f"{name} is empty")
        return [{"role": role, "content": value}]
    if not isinstance(value, list) or not value:
        raise RowError(f"{name}: expected text or a list of messages, found {type(value).__name__}")
    messages: Messages = []
    for message in value:
        said = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if said not in ROLES or not isinstance(content, str):
            raise RowError(
                f"{name}: expected messages of role ({', '.join(ROLES)}) and content, found {message!r}"
            )
        if said == "assistant" and not content.strip():
            raise RowError(f"{name}: the assistant's answer is empty")
        messages.append({"role": said, "content": content})
    return messages


def _keys(row: Mapping[str, Any]) -> str:
    return ", ".join(sorted(row)) or "nothing"
