"""What is compared without asar or core: what an item may expect, WRAM images, ROM addresses, stray writes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.execution.expectations import Case, ExpectError, RomExpect, can_fail, read_expect
from backend.execution.running import (
    MapperError,
    compare_rom,
    first_difference,
    image,
    noise,
    padded,
    rom_offset,
)

CASE: dict[str, Any] = {"seed": 1, "wram": {"7E0010": "0A"}, "expect": {"wram": {"7E0012": "34121111"}}}


def test_an_expect_is_read_as_the_format_says() -> None:
    expect = read_expect(
        {
            "frames": 5, "done": {"7FFFFF": "a5"}, "cases": [CASE, {"frames": 9, "expect": {"wram": {"801FFF": "01"}}}],
            "allow_write": [["001F00", "001FFF"], ["7E0000", "7E000F"]], "max_size": 32,
            "rom": {"allow": [["008000", "00FFFF"]], "bytes": {"$008000": "EA"}},
            "answer": {"kind": "value", "wram": "000010", "len": 2},
        }
    )  # fmt: skip
    assert expect.cases[0] == Case(1, ((0x10, b"\x0a"),), ((0x12, b"\x34\x12\x11\x11"),), 5)
    assert expect.cases[1] == Case(0, (), ((0x1FFF, b"\x01"),), 9)
    assert expect.done == ((0x1FFFF, b"\xa5"),)
    assert expect.allow_write == ((0x1F00, 0x1FFF), (0x0000, 0x000F))
    assert expect.rom == RomExpect(((0x8000, 0xFFFF),), ((0x8000, b"\xea"),))
    assert (expect.max_size, expect.answer and expect.answer.length) == (32, 2)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ([], "'expect' is not an object"),
        ({"frame": 3}, "'expect.frame' is unknown"),
        ({"frames": 0}, "'expect.frames' is 0: a whole number from 1 to 3600"),
        ({"frames": True}, "'expect.frames' is True"),
        ({"done": {"7E00": "A5"}}, "'expect.done': '7E00' is no address of six hex digits"),
        ({"done": {"008000": "A5"}}, "008000 is no address of WRAM"),
        ({"cases": {}}, "'expect.cases' is not a list"),
        ({"cases": [7]}, "'expect.cases[0]' is not an object"),
        ({"cases": [{"seed": -1}]}, "'expect.cases[0].seed' is -1"),
        ({"cases": [{"wram": {"7E0010": "0"}}]}, "'expect.cases[0].wram.7E0010' is '0': bytes"),
        ({"cases": [{"wram": {"7E0010": 5}}]}, "is 5: bytes as hex digits"),
        ({"cases": [{"expect": {"wram": {"7FFFFF": "0000"}}}]}, "runs past the end of WRAM"),
        ({"cases": [CASE] * 65}, "65 cases, at most 64"),
        ({"allow_write": [["000010"]]}, "no list of [first, last]"),
        ({"allow_write": [["000010", "00000F"]]}, "000010 lies behind 00000F"),
        ({"allow_write": [["000010", "020000"]]}, "outside WRAM"),
        ({"rom": {"allow": "all"}}, "'expect.rom.allow' is not a list"),
        ({"rom": {"bytes": {"008000": "xy"}}}, "'expect.rom.bytes.008000' is 'xy'"),
        ({"answer": {"kind": "number"}}, "unknown 'expect.answer.kind' 'number'"),
        ({"answer": {"kind": "value", "wram": "7E0010", "len": 3}}, "neither 1 nor 2"),
        ({"answer": {"kind": "text", "any": []}}, "no list of texts"),
    ],
)
def test_a_mistake_is_named_by_its_key(fields: Any, said: str) -> None:
    with pytest.raises(ExpectError) as caught:
        read_expect(fields)
    assert said in str(caught.value)


def test_what_no_answer_could_fail_is_known() -> None:
    assert not can_fail(read_expect(None), "routine")
    assert not can_fail(read_expect({"cases": [{"seed": 1}]}), "routine")
    assert can_fail(read_expect({"cases": [CASE]}), "routine")
    assert can_fail(read_expect({"cases": [{}], "allow_write": []}), "routine")
    assert can_fail(read_expect({"rom": {}}), "patch")
    assert not can_fail(read_expect({"rom": {}}), "routine")
    assert not can_fail(read_expect({"cases": [CASE]}), "question")


def test_noise_is_the_same_everywhere_and_for_ever() -> None:
    assert noise(1)[:8].hex() == "ebaf5ccd6f37291d", "stored outcomes rest on it"
    assert noise(1) == noise(1) != noise(2)
    assert len(set(noise(7)[:4096])) > 200


@given(st.integers(0, 2**63 - 1), st.binary(min_size=1, max_size=2))
def test_a_case_begins_with_its_inputs_and_never_as_if_it_were_done(seed: int, value: bytes) -> None:
    done = ((0x100, noise(seed)[0x100:0x102]),)
    before = image(Case(seed, ((0x20, value),), (), 1), done)
    assert before[0x20 : 0x20 + len(value)] == value
    assert before[0x100:0x102] != done[0][1]
    assert len(before) == 0x20000


@given(
    st.binary(max_size=40),
    st.binary(max_size=40),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40))),
)
def test_the_first_stray_write_is_found(one: bytes, two: bytes, pairs: list[tuple[int, int]]) -> None:
    size = min(len(one), len(two))
    before, after = one[:size], two[:size]
    allowed = [(min(pair), max(pair)) for pair in pairs]
    slow = next(
        (
            n
            for n in range(size)
            if before[n] != after[n] and not any(first <= n <= last for first, last in allowed)
        ),
        None,
    )
    assert first_difference(before, after, allowed) == slow


def test_rom_addresses_become_offsets_in_the_file() -> None:
    assert [rom_offset(a, hirom=False) for a in (0x008000, 0x018000, 0x80FFFF, 0x308000)] == [
        0, 0x8000, 0x7FFF, 0x180000,
    ]  # fmt: skip
    assert [rom_offset(a, hirom=True) for a in (0x008000, 0xC00000, 0x410123)] == [0x8000, 0, 0x10123]
    for address, hirom in ((0x000010, False), (0x7E8000, False), (0x001234, True), (0x7E0000, True)):
        with pytest.raises(MapperError, match="is no address of a"):
            rom_offset(address, hirom=hirom)


def test_a_patch_that_shortens_the_rom_or_misses_a_byte_is_told() -> None:
    vanilla = bytes(0x8000)
    expect = RomExpect(((0x008010, 0x008011),), ((0x008010, b"\x01"),))
    changed = bytearray(vanilla)
    changed[0x10] = 1
    assert compare_rom(vanilla, bytes(changed), expect, hirom=False) is None
    assert compare_rom(vanilla, vanilla, expect, hirom=False) == "$008010 is 00, expected 01"
    assert "32767 bytes, 32768 before" in (compare_rom(vanilla, vanilla[1:], expect, hirom=False) or "")
    changed[0x12] = 9
    assert compare_rom(vanilla, bytes(changed), expect, hirom=False) == (
        "file offset 000012 was changed (00 to 09)"
    )


@given(st.integers(0, 300_000))
def test_a_rom_is_filled_up_to_a_power_of_two(size: int) -> None:
    made = padded(b"\xff" * size)
    assert len(made) >= max(size, 0x8000)
    assert len(made) & (len(made) - 1) == 0
    assert made.rstrip(b"\0") == b"\xff" * size
