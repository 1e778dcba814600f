"""What counts as the same text, the same code and the same answer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.similarity.exact import exact_hash, sample_text
from backend.similarity.fences import code_of, fenced_blocks
from backend.similarity.normalise import asm_lines, normalise_assembly, normalise_text, same_answer


@settings(deadline=None)
@given(st.text())
def test_normalising_text_twice_changes_nothing(text: str) -> None:
    once = normalise_text(text)
    assert normalise_text(once) == once
    assert exact_hash(text) == exact_hash(once)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Load  A\r\nwith\t$12", "load a with $12"),
        ("ﬁne", "FINE"),
        ("Straße", "STRASSE"),
        ("zero\u200bwidth", "zerowidth"),
        ("e\u0301", "é"),
        ("full\uff21", "fullA"),
    ],
)
def test_typing_makes_no_difference_to_the_hash(first: str, second: str) -> None:
    assert exact_hash(first) == exact_hash(second)


def test_content_makes_a_difference_to_the_hash() -> None:
    assert exact_hash("LDA #$12") != exact_hash("LDA $12")
    assert exact_hash(sample_text("a", "", "b")) != exact_hash(sample_text("a", "x", "b"))
    assert len(exact_hash("half a character \ud800")) == 64


def test_the_code_of_an_answer_is_the_block_that_defines_the_label() -> None:
    answer = "Say:\n```asm\nNOP\nNOP\nNOP\nNOP\n```\nthen\n~~~\nMain:\n RTS\n~~~\n"
    assert fenced_blocks(answer) == ["NOP\nNOP\nNOP\nNOP", "Main:\n RTS"]
    assert code_of(answer, "Main") == "Main:\n RTS"
    assert code_of(answer) == "NOP\nNOP\nNOP\nNOP"
    assert code_of("LDA #$01") == "LDA #$01"


def test_a_fence_that_was_cut_runs_to_the_end_and_a_longer_fence_holds_shorter_ones() -> None:
    assert fenced_blocks("```asm\nLDA #$01\nRTS") == ["LDA #$01\nRTS"]
    assert fenced_blocks("````\n```\nx\n```\n````") == ["```\nx\n```"]


@pytest.mark.parametrize(
    "answer",
    [
        "ORA #$2B",
        "  ora   #$2b ; set bits",
        "`ORA #$2B`",
        "Here it is:\n```asm\n; or\nORA #$2B\n```\nIt sets bits.",
        "ORA #$2B\n\nThis instruction ORs the accumulator.",
    ],
)
def test_an_assembly_answer_is_right_however_it_is_dressed(answer: str) -> None:
    assert same_answer(answer, "ORA #$2B", "asm")


@pytest.mark.parametrize("answer", ["ORA $2B", "ORA #$2C", "", "; ORA #$2B", "Sure:\nORA #$2B"])
def test_an_assembly_answer_is_wrong_in_operand_mode_or_place(answer: str) -> None:
    assert not same_answer(answer, "ORA #$2B", "asm")


def test_a_reference_of_several_lines_wants_them_all() -> None:
    reference = "REP #$20\nLDA #$1234"
    assert same_answer("rep #$20\n\nlda #$1234\nrts", reference, "asm")
    assert not same_answer("REP #$20", reference, "asm")


def test_an_unknown_normaliser_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'ams'"):
        same_answer("a", "a", "ams")  # type: ignore[arg-type]


def test_a_semicolon_in_a_string_is_no_comment() -> None:
    assert asm_lines('db "a;b" ; text\n') == ('db "a;b"',)


def test_moved_and_renamed_code_has_one_normal_form() -> None:
    first = "Main:\n  LDA $7E0010,X  ; load\n.loop\n  STA $2100\n  BNE .loop\n  JMP Main"
    second = "start:\n lda $7e0456,x\n.again\n sta $4200 ;store\n bne .again\n jmp start"
    assert normalise_assembly(first) == normalise_assembly(second)
    assert normalise_assembly(first, addresses=False) != normalise_assembly(second, addresses=False)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("LDA #$10", "LDA #$20"),  # another immediate
        ("LDA $10", "LDA $1000"),  # another width
        ("LDA $10\nSTA $10", "LDA $10\nSTA $12"),  # the same place, or two
        ("db $10,$20", "db $10,$30"),  # data
        ("a:\nBRA a", "a:\nb:\nBRA b"),
    ],
)
def test_code_that_does_something_else_stays_different(first: str, second: str) -> None:
    assert normalise_assembly(first) != normalise_assembly(second)


@settings(deadline=None)
@given(st.text())
def test_no_answer_breaks_the_normalisers(text: str) -> None:
    asm_lines(text)
    normalise_assembly(text)
    assert same_answer(text, text, "asm")
    assert same_answer(text, text, "text")
