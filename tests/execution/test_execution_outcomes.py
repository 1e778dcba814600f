"""What becomes of answers: every outcome once, with the real asar and the real core."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.execution.items import Executed, Task, answer_line, judge_answer, read_value
from backend.execution.pool import Execution, open_execution
from backend.execution.tools import Found, Tools
from tests.execution.roms import ADDS, HEADER, RIGHT, STACK, VANILLA, task

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_right_answer_is_right_and_says_what_it_took(execution: Execution) -> None:
    judged = await judge_answer(execution, task(), f"Here you are:\n```asm\n{RIGHT}\n```\nEnjoy.")
    assert judged == Executed(
        "correct", "2 cases as expected", True, True, True, cases=2, cases_right=2, emitted=6
    )
    assert judged.score == 1.0


@pytest.mark.parametrize(
    ("answer", "outcome", "detail", "score"),
    [
        ("Answer:\n lda $10 : sta $11 : rts", "wrong", "case 1 of 2: $7E0011 is 07, expected 08", 0.5),
        ("Answer:\n lda #$08 : sta $11 : rts", "wrong", "case 2 of 2: $7E0011 is 08, expected 00", 0.7),
        ("Answer:\n bra Answer", "no_finish", "case 1 of 2: not done after 4 frames", 0.25),
        ("Answer:\n stp", "no_finish", "not done after 4 frames", 0.25),
        ("Answer:\n mul $10", "no_assembly", "answer.asm:2: error: (Eunknown_command)", 0.0),
        ("Other:\n rts", "no_assembly", "Label 'Answer' wasn't found", 0.0),
        ("Answer:", "no_assembly", "emits no bytes", 0.0),
        ("; only words", "no_assembly", "", 0.0),
        ("  \n", "no_answer", "the answer is empty", 0.0),
        ('Answer:\n incsrc "other.asm"', "refused", "line 2: incsrc reads a file", 0.0),
    ],
)
async def test_what_is_not_right_says_how_far_it_came(
    execution: Execution, answer: str, outcome: str, detail: str, score: float
) -> None:
    judged = await judge_answer(execution, task(), answer)
    assert (judged.outcome, judged.score) == (outcome, score)
    assert detail in judged.detail
    assert judged.right is False or judged.outcome == "no_answer"


async def test_an_answer_that_emits_more_than_it_may_is_too_big(execution: Execution) -> None:
    long = RIGHT.replace("    rts", "    nop\n" * 60 + "    rts")
    assert (await judge_answer(execution, task(max_size=66), long)).outcome == "correct"
    judged = await judge_answer(execution, task(max_size=65), long)
    assert (judged.outcome, judged.emitted, judged.detail) == (
        "too_big", 66, "66 bytes, at most 65 are allowed",
    )  # fmt: skip


async def test_bytes_are_counted_wherever_an_answer_puts_them(execution: Execution) -> None:
    moved = RIGHT + "\norg $00E000\n    dw $1234,$5678"
    judged = await judge_answer(execution, task(max_size=9), moved)
    assert (judged.outcome, judged.emitted) == ("too_big", 10)


async def test_of_several_blocks_the_one_that_defines_the_label_counts(execution: Execution) -> None:
    wrong = "\n".join(["Helper:", *["    nop"] * 20, "    rts"])
    answer = f"First this:\n```\n{wrong}\n```\nthen:\n```\n{RIGHT}\n```"
    assert (await judge_answer(execution, task(), answer)).outcome == "correct"
    assert (await judge_answer(execution, task(label=None), answer)).outcome == "no_assembly"


async def test_a_write_where_none_is_allowed_is_found(execution: Execution) -> None:
    strict = task(allow_write=[STACK, ["00FFF0", "00FFF0"]])
    assert (await judge_answer(execution, strict, RIGHT)).outcome == "correct"
    stray = RIGHT.replace("    rts", "    sta $7F1234\n    rts")
    judged = await judge_answer(execution, strict, stray)
    assert judged.outcome == "wrong"
    assert "$7F1234 was written" in judged.detail
    assert (await judge_answer(execution, task(), stray)).outcome == "correct", (
        "without the key nothing is asked"
    )


async def test_a_product_that_is_read_too_early_is_wrong(execution: Execution) -> None:
    """The balanced core takes the multiplier's time as the hardware does; a faster one would let this pass."""
    product = [{"seed": 3, "wram": {"7E0010": "FFFF"}, "expect": {"wram": {"7E0012": "01FE"}}}]
    start = "Answer:\n lda $10 : sta $4202 : lda $11 : sta $4203\n"
    end = " rep #$20 : lda $4216 : sta $12 : sep #$20 : rts"
    early = " ldx $4216 : stx $12 : ldx $4217 : stx $13 : rts"
    patient = await judge_answer(execution, task(cases=product), start + " nop : nop : nop : nop\n" + end)
    assert patient.outcome == "correct"
    hasty = await judge_answer(execution, task(cases=product), start + early)
    assert hasty.outcome == "wrong"


async def test_warnings_of_asar_are_kept(execution: Execution) -> None:
    judged = await judge_answer(execution, task(), RIGHT + "\n warnpc $00FFFF\n rep 2 : nop")
    assert judged.outcome == "correct"
    assert any("DEPRECATION" in warning for warning in judged.warnings)


def patch(**expect: object) -> Task:
    cases = [{"seed": 1, "expect": {"wram": {"7E0010": "02"}}}]
    rom = {"allow": [["008010", "00801F"], ["00F000", "00F0FF"]]}
    return task("patch", VANILLA, None, **({"cases": cases, "rom": rom} | expect))


# In VANILLA the hook's `lda #$01` stands at $008014 (its operand at $008015).
async def test_a_patch_is_applied_and_run_and_all_else_stays_vanilla(execution: Execution) -> None:
    judged = await judge_answer(execution, patch(), "org $008015\n db $02")
    assert (judged.outcome, judged.emitted) == ("correct", 1), judged.detail
    elsewhere = await judge_answer(execution, patch(), "org $008015\n db $02\norg $00E123\n db $77")
    assert elsewhere.outcome == "wrong"
    assert "file offset 006123 was changed (00 to 77)" in elsewhere.detail
    nothing = await judge_answer(execution, patch(), "org $00F000\n rts")
    assert (nothing.outcome, nothing.ran) == ("wrong", True)


async def test_a_patch_may_not_change_the_size_and_must_leave_what_is_named(execution: Execution) -> None:
    grown = await judge_answer(execution, patch(), "org $008015\n db $02\norg $10FFFF\n db 0")
    assert grown.outcome == "wrong"
    assert "bytes, 65536 before" in grown.detail
    named = patch(cases=[], rom={"bytes": {"008014": "A9 02"}})
    assert (await judge_answer(execution, named, "org $008015\n db 2")).outcome == "correct"
    judged = await judge_answer(execution, named, "org $008015\n db 3")
    assert judged.detail == "$008014 is A9 03, expected A9 02"


async def test_a_questions_truth_is_what_its_setup_leaves(execution: Execution) -> None:
    setup = HEADER + " lda #$3C : asl a : sta $20 : lda #$01 : sta $21 : lda #$A5 : sta $7EFFF0\n stp\n"
    question = task("question", setup, None, cases=[], answer={"kind": "value", "wram": "7E0020", "len": 2})
    for right in ("Answer: $0178", "Answer: 7\nno, Answer: 376", "**Answer:** `0x178`.", "Answer:\n$178"):
        assert (await judge_answer(execution, question, right)).outcome == "correct", right
    for wrong in ("Answer: $0179", "Answer: 0178", "Answer: about $0178"):
        assert (await judge_answer(execution, question, wrong)).outcome == "wrong", wrong
    assert (await judge_answer(execution, question, "It is $0178.")).outcome == "no_answer"
    named = task("question", setup, None, cases=[], answer={"kind": "text", "any": ["the carry", "carry"]})
    assert (await judge_answer(execution, named, "Answer: Carry.")).outcome == "correct"
    assert (await judge_answer(execution, named, "Answer: zero")).outcome == "wrong"


async def test_an_item_whose_own_setup_is_broken_is_nobodys_failure(execution: Execution) -> None:
    question = task("question", "lorom\nnonsense", None, answer={"kind": "value", "wram": "7E0020"})
    patched = task("patch", "lorom\nnonsense", None)
    for item, answer in ((question, "Answer: 1"), (patched, "org $008000\n nop")):
        judged = await judge_answer(execution, item, answer)
        assert (judged.outcome, judged.score) == ("not_run", None)
        assert "the item's own setup is no_assembly" in judged.detail
    assert (await judge_answer(execution, task(setup=HEADER), RIGHT)).outcome == "not_run"


async def test_without_asar_or_core_nothing_is_passed_and_nothing_failed(tools: Tools) -> None:
    async with open_execution(Tools(Found(None, "no asar here"), tools.core)) as without_asar:
        judged = await judge_answer(without_asar, task(), RIGHT)
    assert (judged.outcome, judged.detail, judged.score) == ("not_run", "not run: no asar here", None)
    async with open_execution(Tools(tools.asar, Found(None, "no core here"))) as without_core:
        judged = await judge_answer(without_core, task(), RIGHT)
        assert (judged.outcome, judged.assembled, judged.right) == ("not_run", True, None)
        assert (await judge_answer(without_core, task(), "Answer:\n mul")).outcome == "no_assembly"
    broken = Path(__file__)
    async with open_execution(Tools(tools.asar, Found(broken))) as no_core:
        judged = await judge_answer(no_core, task(), RIGHT)
    assert judged.outcome == "not_run"
    assert "is no libretro core" in judged.detail


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seeds=st.lists(st.integers(0, 2**63 - 1), min_size=4, max_size=4))
async def test_noise_changes_nothing_about_a_right_routine(execution: Execution, seeds: list[int]) -> None:
    cases = [{**ADDS[n % 2], "seed": seed} for n, seed in enumerate(seeds)]
    strict = task(cases=cases, allow_write=[STACK, ["00FFF0", "00FFF0"]])
    assert (await judge_answer(execution, strict, RIGHT)).outcome == "correct"


async def test_what_was_in_memory_before_is_noise_and_not_zero(execution: Execution) -> None:
    """A routine that counts on cleared memory is found out."""
    lazy = "Answer:\n lda $10 : sec : adc $11 : sta $11 : rts"
    assert (await judge_answer(execution, task(), lazy)).outcome == "wrong"
    cleared = [{**case, "wram": {**case["wram"], "7E0011": "00"}} for case in ADDS]  # type: ignore[dict-item]
    assert (await judge_answer(execution, task(cases=cleared), lazy)).outcome == "correct"


async def test_without_done_all_frames_are_run(execution: Execution) -> None:
    counts = ("Answer:\n stz $20\n- lda $4212 : bpl -\n- lda $4212 : bmi -\n inc $20 : bra --\n").replace(
        "- lda $4212 : bpl -\n-", "-- lda $4212 : bpl --\n-"
    )
    frames = [{"seed": 1, "frames": 5, "expect": {"wram": {"7E0020": "04"}}}]
    judged = await judge_answer(execution, task(cases=frames, done={}), counts)
    assert judged.outcome == "correct", judged.detail


async def test_an_answer_line_is_read_and_a_number_is_a_number() -> None:
    assert answer_line("Answer: 5\nAnswer:   **$12**") == "$12"
    assert answer_line("no such line") == ""
    assert [read_value(text) for text in ("$1F", "0x1f", "31", "#$1F", "`31`", "1F", "", "-1")] == [
        31, 31, 31, 31, 31, None, None, None,
    ]  # fmt: skip
