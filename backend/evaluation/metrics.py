"""Metrics of answers against references, and perplexity put together from log-probabilities.

BLEU and chrF are sacrebleu's, on its 0 to 100 scale; it is imported when it is first used.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.similarity.normalise import Normalise, same_answer


@dataclass(frozen=True, slots=True)
class Perplexity:
    """Perplexities by lm-evaluation-harness's names. `word_rolling` and `byte_rolling`: disjoint windows;
    `word_stride`: a sliding window, always lower; all three over whole texts. `completion`: over the tokens of
    the answers given their prompts, which is what was trained. None with a `reason` where there are no
    log-probabilities."""

    word_rolling: float | None = None
    byte_rolling: float | None = None
    word_stride: float | None = None
    reason: str | None = "not measured"
    completion: float | None = None

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Perplexity:
        """From the JSON of the command line or the worker; unknown keys are passed over."""
        numbers = (record.get(name) for name in ("word_rolling", "byte_rolling", "word_stride", "completion"))
        word, byte, stride, completion = (None if number is None else float(number) for number in numbers)
        reason = record.get("reason")
        return cls(word, byte, stride, reason or (None if word is not None else "not measured"), completion)


@dataclass(frozen=True, slots=True)
class DocumentLikelihood:
    """One document's log-likelihood in nats, with its text's words and UTF-8 bytes (`words_of`)."""

    log_likelihood: float
    words: int
    bytes: int


def words_of(document: str) -> int:
    r"""Words as lm-evaluation-harness counts them: the parts of `re.split(r"\s+", document)`, empty ends
    included."""
    return len(re.split(r"\s+", document))


def perplexities(documents: Iterable[DocumentLikelihood]) -> tuple[float, float]:
    """Word and byte perplexity of a corpus, exp(-sum of log-likelihoods / sum of units), as
    lm-evaluation-harness defines `word_perplexity` and `byte_perplexity`: the sums run over all documents, it
    is no mean of means. Infinite where the exponent is too large. Raises ValueError without any document."""
    rows = list(documents)
    words, size = sum(row.words for row in rows), sum(row.bytes for row in rows)
    if not words or not size:
        raise ValueError("perplexity of no text: give at least one document that is not empty")
    loss = -math.fsum(row.log_likelihood for row in rows)
    return _exp(loss / words), _exp(loss / size)


def _exp(exponent: float) -> float:
    try:
        return math.exp(exponent)
    except OverflowError:
        return math.inf


def exact_match(
    answers: Sequence[str], references: Sequence[str], normalise: Normalise = "text"
) -> tuple[int, int]:
    """How many answers equal their reference after normalising, and of how many. Raises ValueError for
    different lengths."""
    pairs = list(zip(answers, references, strict=True))
    return sum(same_answer(answer, reference, normalise) for answer, reference in pairs), len(pairs)


def bleu(answers: Sequence[str], references: Sequence[str]) -> float | None:
    """Corpus BLEU, 0 to 100, with one reference an answer (Papineni 2002; sacrebleu's defaults: 13a tokens, mixed
    case, exponential smoothing), with n-gram orders capped by the longest answer, since answers of one line of
    assembly have no 4-grams. None without answers. Raises ValueError for different lengths."""
    if not _same_length(answers, references):
        return None
    import sacrebleu

    metric = sacrebleu.BLEU(effective_order=True, force=True)
    return float(metric.corpus_score(list(answers), [list(references)]).score)


def chrf(answers: Sequence[str], references: Sequence[str]) -> float | None:
    """Corpus chrF, 0 to 100 (Popovic 2015; sacrebleu's defaults: 6-grams of characters, beta 2). It fits code
    better than BLEU: it needs no words. None without answers. Raises ValueError for different lengths."""
    if not _same_length(answers, references):
        return None
    import sacrebleu

    return float(sacrebleu.CHRF().corpus_score(list(answers), [list(references)]).score)


def _same_length(answers: Sequence[str], references: Sequence[str]) -> bool:
    if len(answers) != len(references):
        raise ValueError(
            f"{len(answers)} answers and {len(references)} references: they must be of the same items"
        )
    return bool(answers)
