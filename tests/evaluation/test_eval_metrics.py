"""Metrics by hand and by their own definitions."""

from __future__ import annotations

import math

import pytest

from backend.evaluation.metrics import (
    DocumentLikelihood,
    Perplexity,
    bleu,
    chrf,
    exact_match,
    perplexities,
    words_of,
)


def test_exact_match_counts_after_normalising() -> None:
    answers, references = ["LDA  #$12 ; x", "rts", "nop"], ["lda #$12", "RTS", "brk"]
    assert exact_match(answers, references, "asm") == (2, 3)
    assert exact_match(answers, references) == (1, 3)
    with pytest.raises(ValueError, match="shorter"):
        exact_match(["a"], [])


def test_bleu_is_a_hundred_for_the_references_and_less_for_others() -> None:
    references = ["the cat is on the mat today", "there is a dog in the garden"]
    assert bleu(references, references) == pytest.approx(100.0)
    assert chrf(references, references) == pytest.approx(100.0)
    worse = bleu(["the cat sat on a mat today", "a dog is there"], references)
    assert worse is not None
    assert 0 < worse < 60
    assert bleu([], []) is None
    assert chrf([], []) is None


def test_bleu_by_hand() -> None:
    # Papineni 2002 for one sentence: precisions 5/6, 3/5, 2/4, 1/3, and no brevity penalty.
    found = bleu(["the cat is on a mat"], ["the cat is on the mat"])
    assert found == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)


def test_answers_too_short_for_four_grams_still_have_a_bleu() -> None:
    assert bleu(["RTS"], ["RTS"]) == pytest.approx(100.0)


def test_texts_of_different_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="2 answers and 1 references"):
        chrf(["a", "b"], ["a"])


def test_perplexity_sums_over_documents() -> None:
    word, per_byte = perplexities([DocumentLikelihood(-20.0, 4, 20), DocumentLikelihood(-10.0, 6, 40)])
    assert word == pytest.approx(math.exp(30 / 10))
    assert per_byte == pytest.approx(math.exp(30 / 60))
    assert words_of(" two words\n") == 4  # lm-evaluation-harness counts the empty ends
    assert perplexities([DocumentLikelihood(-1e6, 1, 1)])[0] == math.inf
    with pytest.raises(ValueError, match="no text"):
        perplexities([])


def test_a_perplexity_that_was_not_measured_has_a_reason() -> None:
    absent = {
        "word_rolling": None,
        "byte_rolling": None,
        "word_stride": None,
        "reason": "no log-probabilities",
    }
    assert Perplexity.from_record(absent) == Perplexity(reason="no log-probabilities")
    assert Perplexity.from_record({}).reason == "not measured"
    assert Perplexity.from_record({"word_rolling": 3, "byte_rolling": 1.5}) == Perplexity(
        3.0, 1.5, None, None
    )
