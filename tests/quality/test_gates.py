"""What gates let through, what they turn away, and what they say about it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.quality.gates import (
    Candidate,
    GateResult,
    Match,
    duplicates_gate,
    length_gate,
    reference_gate,
    schema_gate,
)
from backend.quality.run import GatesConfig, first_failure, run_gates

GOOD = Candidate("Load A with $12.", "LDA #$12", reference="lda #$12")


async def _nothing_like_it(candidate: Candidate) -> Match | None:
    return None


def test_a_whole_sample_passes_the_schema() -> None:
    assert schema_gate(GOOD).passed is True
    generic = Candidate(
        "Sort a list.", "fn f<T>(x: Vec<T>) -> <T as I>::O { a <| b |> c }\n# Input\n[INST", "x"
    )
    assert schema_gate(generic).passed is True


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        (Candidate(" \n", "x"), "instruction is empty"),
        (Candidate("x", "\u200b "), "output is empty"),
        (Candidate("x", "half \ud83d"), "U+D83D"),
        (Candidate("x", "RTS<|im_end|>"), "<|im_end|>"),
        (Candidate("x", "RTS</s>"), "</s>"),
        (Candidate("[INST] x [/INST]", "RTS"), "[INST]"),
        (Candidate("x", "RTS<end_of_turn>"), "<end_of_turn>"),
        (Candidate("x", "RTS\n### Instruction:\nmore"), "### Instruction:"),
        (Candidate("x", "RTS\nHuman: and now?"), "Human:"),
        (Candidate("x", "RTS", "<|user|>"), "input"),
    ],
)
def test_the_schema_gate_says_what_is_wrong(candidate: Candidate, said: str) -> None:
    result = schema_gate(candidate)
    assert result.passed is False
    assert said in result.reason


def test_length_limits_include_their_ends() -> None:
    assert [length_gate(Candidate("x", "y" * n), 2, 4).passed for n in (1, 2, 4, 5)] == [
        False,
        True,
        True,
        False,
    ]
    result = length_gate(Candidate("x", "y"), 2, 4)
    assert (result.figure, result.reason) == (1.0, "1 characters, at least 2 are wanted")


def test_a_reference_is_compared_as_the_domain_says() -> None:
    dressed = Candidate("x", "```asm\nLDA  #$12 ; load\n```", reference="lda #$12")
    assert reference_gate(dressed, "asm").passed is True
    wrong = reference_gate(dressed, "text")
    assert wrong.passed is False
    assert "lda #$12" in wrong.reason


def test_without_a_reference_the_gate_is_not_run_and_never_passed() -> None:
    assert reference_gate(Candidate("x", "y")).passed is None


async def test_duplicates_name_the_sample_they_repeat() -> None:
    async def near(candidate: Candidate) -> Match | None:
        return Match("s-17", 0.83, exact=False)

    result = await duplicates_gate(GOOD, near)
    assert result == GateResult("duplicates", False, 0.83, "is 0.83 like sample s-17")
    assert (await duplicates_gate(GOOD, _nothing_like_it)).passed is True
    assert (await duplicates_gate(GOOD, None)).passed is None


async def test_all_gates_of_a_good_candidate_are_run_in_order() -> None:
    results = await run_gates(GOOD, GatesConfig(), _nothing_like_it)
    assert [(result.name, result.passed) for result in results] == [
        ("schema", True),
        ("length", True),
        ("reference", True),
        ("duplicates", True),
    ]
    assert first_failure(results) is None


async def test_after_a_failure_nothing_is_called_and_everything_is_reported() -> None:
    async def never(candidate: Candidate) -> Match | None:
        raise AssertionError("the index was asked about a candidate that had failed")

    results = await run_gates(Candidate("x", "y", reference="z"), GatesConfig(), never)
    assert [result.passed for result in results] == [True, True, False, None]
    assert results[3].reason == "not run: reference failed"
    failure = first_failure(results)
    assert failure is not None
    assert failure.name == "reference"


async def test_a_gate_that_was_not_run_turns_nothing_away_and_the_next_is_run() -> None:
    results = await run_gates(Candidate("x", "y"), GatesConfig(), _nothing_like_it)
    assert [result.passed for result in results] == [True, True, None, True]
    assert first_failure(results) is None


async def test_a_database_that_fails_is_no_verdict() -> None:
    async def broken(candidate: Candidate) -> Match | None:
        raise OSError("disk I/O error")

    with pytest.raises(OSError, match="disk"):
        await run_gates(GOOD, GatesConfig(), broken)


@settings(deadline=None)
@given(st.text(), st.text(), st.text(), st.none() | st.text())
async def test_nothing_that_a_model_writes_breaks_a_gate(
    instruction: str, output: str, input_text: str, reference: str | None
) -> None:
    candidate = Candidate(instruction, output, input_text, reference=reference)
    for normalise in ("text", "asm"):
        results = await run_gates(candidate, GatesConfig(normalise=normalise), _nothing_like_it)  # type: ignore[arg-type]
        assert [result.name for result in results] == ["schema", "length", "reference", "duplicates"]
        assert all(result.reason for result in results)
