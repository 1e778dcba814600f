"""Near duplicates are found through the bands, and only they."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.similarity.minhash import BANDS, PERMUTATIONS, bands, estimate, jaccard, shingles, signature

GOLDEN_SIGNATURE = "d586d01d9f625003"
GOLDEN_BAND = 738566005092663701


def _words(rng: random.Random, count: int) -> list[str]:
    return [f"w{rng.randrange(5_000)}" for _ in range(count)]


def _share(first: str, second: str) -> bool:
    return bool(set(bands(signature(first))) & set(bands(signature(second))))


def test_edited_texts_of_seven_tenths_and_more_are_found_and_strangers_are_not() -> None:
    rng = random.Random(7)
    found, false, near = 0, 0, 0
    for _ in range(300):
        words = _words(rng, 120)
        edited = list(words)
        for place in rng.sample(range(120), 3):
            edited[place] = "changed"
        text, other = " ".join(words), " ".join(edited)
        if jaccard(text, other) >= 0.7:
            near += 1
            found += _share(text, other)
        false += _share(text, " ".join(_words(rng, 120)))
    assert near > 200
    assert found / near >= 0.99
    assert false == 0


def test_the_estimate_is_near_the_truth() -> None:
    rng = random.Random(3)
    errors = []
    for _ in range(100):
        words = _words(rng, 200)
        cut = rng.randrange(20, 180)
        first, second = " ".join(words), " ".join(words[:cut] + _words(rng, 200 - cut))
        errors.append(estimate(signature(first), signature(second)) - jaccard(first, second))
    # The standard error of 160 minima is at most 0.04; the mean of 100 is within three of its own.
    assert abs(sum(errors) / 100) < 0.012
    assert max(map(abs, errors)) < 0.2


def test_signatures_are_the_same_for_ever() -> None:
    # Stored in databases: a change here makes every index wrong.
    text = "Load the accumulator with the value at direct page address $12."
    assert signature(text)[:8].hex() == GOLDEN_SIGNATURE
    assert bands(signature(text))[0] == GOLDEN_BAND


@settings(deadline=None)
@given(st.text(), st.text())
def test_keys_fit_sqlite_and_similarity_is_symmetric(first: str, second: str) -> None:
    one, two = signature(first), signature(second)
    keys = bands(one)
    assert len(one) == PERMUTATIONS * 4
    assert len(set(keys)) == BANDS
    assert all(-(2**63) <= key < 2**63 for key in keys)
    assert estimate(one, two) == estimate(two, one)
    assert jaccard(first, second) == jaccard(second, first)
    assert jaccard(first, first) == estimate(one, one) == 1.0


def test_short_texts_use_the_shingles_they_have() -> None:
    assert shingles("RTS") == {"rts"}
    assert shingles("one two three four five six") == {"one two three four five", "two three four five six"}
    assert shingles(" \n") == frozenset()
    assert jaccard("lda #$12", "LDA  #$12") == 1.0
    assert jaccard("lda #$12", "lda #$13") == 0.0


def test_scripts_without_spaces_have_more_than_one_shingle() -> None:
    first = "アキュムレータに即値をロードしてから保存する命令を書いてください"
    assert jaccard(first, first + "。") > 0.9
    assert jaccard(first, "全く別の文章をここに書いておきますのでよろしく") == 0.0


def test_a_signature_of_another_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="another scheme"):
        bands(b"\0" * 512)
    with pytest.raises(ValueError, match="another scheme"):
        estimate(signature("a"), b"")
