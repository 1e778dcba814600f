"""Answers prompts in batches: left-padded, greedy or sampled, stopping at the model's end tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn. Without a temperature they are greedy."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    answers: int = 1


@dataclass(frozen=True, slots=True)
class Prompt(Generic[T]):
    """A prompt's token ids, and what the caller knows it by."""

    of: T
    ids: list[int]


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """One answer: its text without end tokens, its length in tokens, and `stop` or `length`."""

    of: T
    index: int
    text: str
    tokens: int
    finish: str


def answer(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt[T]], batch_size: int, sampling: Sampling
) -> Iterator[list[Answer[T]]]:
    """Yields the answers of one batch after the other; prompts of like length share a batch.

    Within a batch, the answers of a prompt follow each other, numbered from 0.
    """
    ordered = sorted(prompts, key=lambda prompt: len(prompt.ids))
    for start in range(0, len(ordered), batch_size):
        batch = ordered[start : start + batch_size]
        yield _one_batch(model, tokenizer, batch, sampling)


def _one_batch(model: Any, tokenizer: Any, batch: list[Prompt[T]], sampling: Sampling) -> list[Answer[T]]:
    import torch

    from backend.worker.text import end_tokens

    longest = max(len(prompt.ids) for prompt in batch)
    pad = tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (longest - len(prompt.ids)) + prompt.ids for prompt in batch])
    mask = torch.tensor([[0] * (longest - len(prompt.ids)) + [1] * len(prompt.ids) for prompt in batch])
    ends = end_tokens(model, tokenizer)
    draw: dict[str, Any] = {"do_sample": False}
    if sampling.temperature > 0:
        draw = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    with torch.inference_mode():
        found = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=sampling.max_new_tokens,
            num_return_sequences=sampling.answers,
            eos_token_id=sorted(ends),
            pad_token_id=pad,
            **draw,
        )
    answers: list[Answer[T]] = []
    for row, new in enumerate(found[:, longest:].tolist()):
        end = next((at for at, token in enumerate(new) if token in ends), None)
        text = tokenizer.decode(new[:end], skip_special_tokens=True).strip()
        of, index = batch[row // sampling.answers].of, row % sampling.answers
        tokens, finish = (len(new), "length") if end is None else (end + 1, "stop")
        answers.append(Answer(of, index, text, tokens, finish))
    return answers
