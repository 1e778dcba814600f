"""What an item expects of an answer: the `expect` of BENCHMARKS.md, read once, with every mistake named by its key.

Addresses are six hex digits of a SNES address; inside, WRAM is offsets from 0 to 1FFFF.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from backend.execution.core import WRAM_BYTES

Mode = Literal["routine", "patch", "question"]
AnswerKind = Literal["value", "text"]
Outcome = Literal[
    "correct",
    "wrong",
    "no_finish",
    "no_assembly",
    "time_out",
    "refused",
    "too_big",
    "crash",
    "no_answer",
    "not_run",
]

DEFAULT_FRAMES = 60
MOST_FRAMES = 3600
MOST_CASES = 64

Bytes = tuple[tuple[int, bytes], ...]
"""[(address, bytes in memory order)]"""
Ranges = tuple[tuple[int, int], ...]
"""[(first, last)], both included"""


class ExpectError(ValueError):
    """An `expect` that cannot be read; the message names the key and what was expected."""


@dataclass(frozen=True, slots=True)
class Case:
    """One run: noise from `seed`, `wram` over it, and what must stand after at most `frames`."""

    seed: int
    wram: Bytes
    expect: Bytes
    frames: int


@dataclass(frozen=True, slots=True)
class RomExpect:
    """What a patch may change and what must stand after it, by SNES addresses. `allow` None: anything."""

    allow: Ranges | None
    bytes: Bytes


@dataclass(frozen=True, slots=True)
class AnswerExpect:
    """A question's truth: a value of 1 or 2 bytes that stands in WRAM, or any of some texts."""

    kind: AnswerKind
    address: int = 0
    length: int = 1
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Expect:
    """All of it. `done` empty: a case runs all its frames. `allow_write` None: WRAM may change anywhere."""

    cases: tuple[Case, ...] = ()
    done: Bytes = ()
    allow_write: Ranges | None = None
    rom: RomExpect | None = None
    max_size: int | None = None
    answer: AnswerExpect | None = None


def read_expect(value: Any) -> Expect:
    """Read an item's `expect`, an object. Raises ExpectError that names the key."""
    fields = _object(value, "expect")
    known = {"frames", "done", "cases", "allow_write", "rom", "max_size", "answer"}
    unknown = sorted(set(fields) - known)
    if unknown:
        raise ExpectError(f"'expect.{unknown[0]}' is unknown: there are {', '.join(sorted(known))}")
    frames = _count(fields.get("frames", DEFAULT_FRAMES), "expect.frames", MOST_FRAMES)
    cases = tuple(
        _case(case, f"expect.cases[{number}]", frames)
        for number, case in enumerate(_list(fields.get("cases"), "expect.cases"))
    )
    if len(cases) > MOST_CASES:
        raise ExpectError(f"'expect.cases' has {len(cases)} cases, at most {MOST_CASES} are run")
    return Expect(
        cases=cases,
        done=_wram(fields.get("done"), "expect.done"),
        allow_write=_offsets(fields["allow_write"]) if "allow_write" in fields else None,
        rom=_rom(fields["rom"]) if "rom" in fields else None,
        max_size=_count(fields["max_size"], "expect.max_size", 1 << 24) if "max_size" in fields else None,
        answer=_answer(fields["answer"]) if "answer" in fields else None,
    )


def can_fail(expect: Expect, mode: Mode) -> bool:
    """Whether an answer that assembles could still be wrong: what cannot is no measure."""
    if mode == "question":
        return expect.answer is not None
    of_memory = (
        any(case.expect for case in expect.cases) or expect.allow_write is not None or bool(expect.done)
    )
    return (bool(expect.cases) and of_memory) or (mode == "patch" and expect.rom is not None)


def _case(value: Any, key: str, frames: int) -> Case:
    fields = _object(value, key)
    inner = _object(fields.get("expect"), f"{key}.expect")
    return Case(
        seed=_count(fields.get("seed", 0), f"{key}.seed", (1 << 63) - 1, least=0),
        wram=_wram(fields.get("wram"), f"{key}.wram"),
        expect=_wram(inner.get("wram"), f"{key}.expect.wram"),
        frames=_count(fields.get("frames", frames), f"{key}.frames", MOST_FRAMES),
    )


def _rom(value: Any) -> RomExpect:
    fields = _object(value, "expect.rom")
    allow = _ranges(fields["allow"], "expect.rom.allow") if "allow" in fields else None
    bytes_ = tuple(
        (_address(address, "expect.rom.bytes"), _bytes(data, f"expect.rom.bytes.{address}"))
        for address, data in _object(fields.get("bytes"), "expect.rom.bytes").items()
    )
    return RomExpect(allow, bytes_)


def _answer(value: Any) -> AnswerExpect:
    fields = _object(value, "expect.answer")
    kind = fields.get("kind")
    if kind == "value":
        length = fields.get("len", 1)
        if length not in (1, 2):
            raise ExpectError("'expect.answer.len' is neither 1 nor 2")
        return AnswerExpect("value", _wram_offset(fields.get("wram"), "expect.answer.wram"), length)
    if kind == "text":
        texts = tuple(_list(fields.get("any"), "expect.answer.any"))
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise ExpectError("'expect.answer.any' is no list of texts")
        return AnswerExpect("text", texts=texts)
    raise ExpectError(f"unknown 'expect.answer.kind' {kind!r}: expected value or text")


def _wram(value: Any, key: str) -> Bytes:
    read = []
    for address, data in _object(value, key).items():
        offset, content = _wram_offset(address, key), _bytes(data, f"{key}.{address}")
        if offset + len(content) > WRAM_BYTES:
            raise ExpectError(f"'{key}.{address}' runs past the end of WRAM")
        read.append((offset, content))
    return tuple(read)


def _offsets(value: Any) -> Ranges:
    """Ranges of WRAM offsets; a full address of bank 7E or 7F means the same."""
    ranges = tuple(
        (first & 0x1FFFF, last & 0x1FFFF) if first >= 0x7E0000 else (first, last)
        for first, last in _ranges(value, "expect.allow_write")
    )
    if any(last >= WRAM_BYTES or first > last for first, last in ranges):
        raise ExpectError("'expect.allow_write' lies outside WRAM (offsets 000000 to 01FFFF)")
    return ranges


def _ranges(value: Any, key: str) -> Ranges:
    read = []
    for pair in _list(value, key):
        if not isinstance(pair, list) or len(pair) != 2:
            raise ExpectError(f"{key!r} is no list of [first, last]")
        first, last = (_address(address, key) for address in pair)
        if first > last:
            raise ExpectError(f"{key!r}: {pair[0]} lies behind {pair[1]}")
        read.append((first, last))
    return tuple(read)


def _wram_offset(value: Any, key: str) -> int:
    """The WRAM offset of a SNES address: banks 7E and 7F, and the first 8 KiB of banks 00-3F and 80-BF."""
    address = _address(value, key)
    bank, within = address >> 16, address & 0xFFFF
    if bank in (0x7E, 0x7F):
        return address - 0x7E0000
    if bank & 0x7F < 0x40 and within < 0x2000:
        return within
    raise ExpectError(f"{key!r}: {value} is no address of WRAM")


def _address(value: Any, key: str) -> int:
    text = value.removeprefix("$") if isinstance(value, str) else ""
    if len(text) != 6 or not all(digit in "0123456789abcdefABCDEF" for digit in text):
        raise ExpectError(f"{key!r}: {value!r} is no address of six hex digits")
    return int(text, 16)


def _bytes(value: Any, key: str) -> bytes:
    try:
        data = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        data = b""
    if not data:
        raise ExpectError(f"'{key}' is {value!r}: bytes as hex digits were expected")
    return data


def _count(value: Any, key: str, most: int, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ExpectError(f"{key!r} is {value!r}: a whole number from {least} to {most} was expected")
    return value


def _object(value: Any, key: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ExpectError(f"{key!r} is not an object")
    return value


def _list(value: Any, key: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ExpectError(f"{key!r} is not a list")
    return value
