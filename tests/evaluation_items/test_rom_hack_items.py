"""The items of rom_hack measure what they say: their own answers come out right, and wrong patches do not pass."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from backend.evaluation.benchmarks import BenchmarkItem, read_benchmark
from backend.evaluation.checking import check_benchmark
from backend.evaluation.scoring import score_answer
from backend.execution.pool import Execution
from backend.execution.tools import find_tools
from backend.settings.models import Tools
from tests.evaluation_items.mutations import Mutant, explained, mutants_of, survivors
from tests.fixtures.benchmarks.rom_hack.making import CANARY
from tests.fixtures.make_rom_hack_benchmark import FILE, lines

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_every_item_s_own_answers_come_out_as_the_file_says() -> None:
    report = await check_benchmark(FILE, find_tools(Tools()))
    assert [(case.id, case.kind, case.outcome, case.detail) for case in report.failed] == []
    assert report.holds
    assert not report.unchecked
    assert report.items >= 30
    judged = Counter((case.id, case.kind) for case in report.cases)
    items = read_benchmark(FILE).items
    assert all(judged[item.id, "reference"] >= 2 for item in items), "a reference and another right patch"
    assert all(judged[item.id, "near_miss"] and judged[item.id, "broken"] for item in items)


async def test_the_file_is_what_its_source_makes() -> None:
    assert FILE.read_text("utf-8") == lines(), "run python -m tests.fixtures.make_rom_hack_benchmark"


async def test_items_are_marked_and_their_prompts_hold_no_answer() -> None:
    for item in read_benchmark(FILE).items:
        assert item.canary == CANARY
        assert CANARY not in item.prompt
        assert len(item.wanted.cases if item.wanted else ()) >= 4 or item.id in (
            "rom-hack-nmi-vector",
            "rom-hack-nmi-bug",
        )
        assert all(reference not in item.prompt for reference in item.references)


async def test_no_instruction_and_no_data_of_a_right_patch_can_be_left_out(execution: Execution) -> None:
    """Of the instructions every tenth; `python -m tests.evaluation_items.mutations rom_hack` tries them all."""
    items = read_benchmark(FILE).items
    instructions = [mutant for item in items for mutant in mutants_of(item)]
    data = [mutant for item in items for mutant in _without_data(item)]
    assert len(instructions) > 400
    assert len(data) > 40
    found = await survivors(execution, [*instructions[::10], *data])
    assert {mutant.key for mutant in found} <= set(explained())


def _without_data(item: BenchmarkItem) -> Iterator[Mutant]:
    for number, answer in enumerate(item.references):
        lines = answer.splitlines()
        for place, line in enumerate(lines):
            if line.strip().startswith(("db ", "dw ")):
                text = "\n".join(lines[:place] + lines[place + 1 :])
                yield Mutant(item, number, place, line.strip(), text)


@pytest.mark.parametrize(
    ("more", "outcomes"),
    [
        ("org $028000\n    db $00", {"wrong"}),
        ("freecode\n    db $EA,$EA,$EA,$EA", {"wrong", "no_assembly"}),
        ('org $00FFC0\n    db "MINE"', {"wrong"}),
        ("org $00FFD7\n    db $07", {"wrong"}),
        ("org $008028\n    nop", {"wrong"}),
    ],
    ids=["grows the ROM", "freecode", "another title", "another size in the header", "a byte of the game"],
)
async def test_a_right_patch_that_does_more_is_wrong(
    execution: Execution, more: str, outcomes: set[str]
) -> None:
    items = [item for item in read_benchmark(FILE).items if item.wanted and item.wanted.max_size is None]
    found = await asyncio.gather(
        *(score_answer(execution, item, f"{_code(item.references[0])}\n{more}\n") for item in items)
    )
    assert {outcome for outcome, _ in found} <= outcomes, found


async def test_a_routine_that_writes_elsewhere_is_wrong(execution: Execution) -> None:
    items = [item for item in read_benchmark(FILE).items if "    rtl" in item.references[0]]
    assert len(items) > 10
    found = await asyncio.gather(
        *(
            score_answer(
                execution,
                item,
                _code(item.references[0]).replace(
                    "    rtl", "    pha\n    lda #$5A\n    sta $7F4321\n    pla\n    rtl"
                ),
            )
            for item in items
        )
    )
    assert all(outcome in ("wrong", "no_finish") for outcome, _ in found), found


async def test_the_game_as_it_was_is_wrong(execution: Execution) -> None:
    items = read_benchmark(FILE).items
    unchanged = "org $00FE80\n    db $EA"
    found = await asyncio.gather(*(score_answer(execution, item, unchanged) for item in items))
    assert {outcome for outcome, _ in found} <= {"wrong", "no_finish"}, found


@pytest.mark.parametrize(
    "spoil",
    [
        lambda code: code.replace("    rtl", "    rts"),
        lambda code: _moved(code, 1),
        lambda code: _moved(code, -1),
        lambda code: code.replace("    rtl", "    rep #$30\n    rtl"),
    ],
    ids=["returns short", "hooks a byte late", "hooks a byte early", "returns with other widths"],
)
async def test_a_spoiled_patch_is_wrong(execution: Execution, spoil: Callable[[str], str]) -> None:
    spoiled = [(item, spoil(_code(item.references[0]))) for item in read_benchmark(FILE).items]
    spoiled = [(item, code) for item, code in spoiled if code != _code(item.references[0])]
    assert len(spoiled) > 10
    found = await asyncio.gather(*(score_answer(execution, item, code) for item, code in spoiled))
    passed = [item.id for (item, _), (outcome, _) in zip(spoiled, found, strict=True) if outcome == "correct"]
    assert passed == []


def _moved(code: str, step: int) -> str:
    """The patch with its first change in the game that many bytes away."""
    place = re.search(r"org \$(00[89][0-9A-F]{3}|00FFEA)", code)
    assert place, code
    return code.replace(place[0], f"org ${int(place[1], 16) + step:06X}", 1)


async def test_the_banks_from_80_on_mean_the_same(execution: Execution) -> None:
    """LoROM shows the same bytes at $80 and up, where many hackers put their code."""
    items = read_benchmark(FILE).items
    moved = [re.sub(r"org \$0([01])", r"org $8\1", item.references[0]) for item in items]
    found = await asyncio.gather(
        *(score_answer(execution, item, text) for item, text in zip(items, moved, strict=True))
    )
    assert {outcome for outcome, _ in found} == {"correct"}, found


async def test_what_is_no_patch_is_no_right_one(execution: Execution) -> None:
    items = read_benchmark(FILE).items
    texts = ["", "Use a JSL to free space.", "```asm\n; nothing\n```", "lorom\n"]
    found = await asyncio.gather(*(score_answer(execution, item, text) for item in items for text in texts))
    assert {outcome for outcome, _ in found} <= {"no_assembly", "no_answer"}, Counter(found)


def _code(answer: str) -> str:
    return answer.removeprefix("```asm\n").removesuffix("\n```")
