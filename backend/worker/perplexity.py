"""Perplexity of held-out rows, by three conventions that are told apart by name.

- completion: the answer's tokens given its prompt in the chat template, as in training.
- rolling: lm-evaluation-harness's `loglikelihood_rolling`. x = [prefix] + tokens of the plain text, the
  prefix being BOS (else EOS); disjoint windows of L tokens, each scored with one token of context before it;
  a short last window that ends at e is fed x[e-L:e] and only its unscored tokens count.
- stride: Hugging Face's sliding window, L tokens at a time, moved by `stride`, over the same x.

word_ppl = exp(-sum LL / sum words), words = len(re.split(r"\\s+", text)); byte_ppl the same over UTF-8 bytes;
sums run over all rows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

TOKENS_AT_ONCE = 2048


@dataclass(frozen=True, slots=True)
class Window:
    """Token ids, and how many of the last ones are scored (each given all before it). All but the last are
    fed to the model."""

    row: int
    ids: list[int]
    scored: int


def rolling_windows(row: int, ids: Sequence[int], prefix: int, length: int) -> list[Window]:
    """Disjoint windows that score every token of `ids` once, at most `length` at a time."""
    x = [prefix, *ids]
    windows: list[Window] = []
    for start in range(1, len(x), length):
        end = min(start + length, len(x))
        scored = end - start
        first = start - 1 if len(windows) == 0 or scored == length else max(0, end - length - 1)
        windows.append(Window(row, x[first:end], scored))
    return windows


def stride_windows(row: int, ids: Sequence[int], prefix: int, length: int, stride: int) -> list[Window]:
    """Windows of at most `length` inputs that overlap: each scores what the one before did not."""
    x = [prefix, *ids]
    windows: list[Window] = []
    done = 1
    for start in range(0, len(x), stride):
        end = min(start + length + 1, len(x))
        if end > done:
            windows.append(Window(row, x[start:end], end - done))
            done = end
        if end == len(x):
            break
    return windows


def log_likelihoods(model: Any, windows: Sequence[Window], pad: int) -> list[float]:
    """The sum of log-probabilities (nats) of each window's scored tokens, in the windows' order."""
    import torch

    sums = [0.0] * len(windows)
    order = sorted(range(len(windows)), key=lambda at: len(windows[at].ids), reverse=True)
    while order:
        room = max(1, TOKENS_AT_ONCE // max(1, len(windows[order[0]].ids)))
        batch, order = order[:room], order[room:]
        longest = len(windows[batch[0]].ids)
        ids = torch.tensor([windows[at].ids + [pad] * (longest - len(windows[at].ids)) for at in batch])
        mask = torch.tensor(
            [[1] * len(windows[at].ids) + [0] * (longest - len(windows[at].ids)) for at in batch]
        )
        # The last token is a target and no input: a window of the model's whole context has one token more.
        fed, seen = ids[:, :-1].to(model.device), mask[:, :-1].to(model.device)
        with torch.inference_mode():
            logits = model(input_ids=fed, attention_mask=seen).logits
        for row, at in enumerate(batch):
            window = windows[at]
            end = len(window.ids)
            targets = ids[row, end - window.scored : end].to(logits.device)
            scores = logits[row, end - window.scored - 1 : end - 1].float()
            sums[at] = -float(torch.nn.functional.cross_entropy(scores, targets, reduction="sum"))
    return sums


def words(text: str) -> int:
    """Words as lm-evaluation-harness counts them, empty ends included."""
    return len(re.split(r"\s+", text))


def perplexity(log_likelihood: float, count: int) -> float | None:
    """exp(-LL / count); None where there is nothing to count."""
    if count <= 0:
        return None
    try:
        return math.exp(-log_likelihood / count)
    except OverflowError:
        return math.inf
