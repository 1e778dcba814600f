"""Runs an assembled ROM through an item's cases, and compares WRAM and ROM with what is expected.

All comparing is done here, in our own process: the child that ran the code knows nothing of what is right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from backend.execution.core import WRAM_BYTES
from backend.execution.expectations import Bytes, Case, Expect, Outcome, Ranges, RomExpect
from backend.execution.pool import CaseReply, CaseToRun, Execution

_SMALLEST_ROM = 32 * 1024


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of the cases. `right` of `cases` ended as expected; `outcome` and `detail` are those of the
    first that did not. `wrams` hold the WRAM after each case, empty where it did not end."""

    outcome: Outcome
    detail: str
    cases: int
    right: int
    wrams: tuple[bytes, ...]

    @property
    def ran(self) -> bool:
        """Whether every case came to its end."""
        return self.outcome in ("correct", "wrong")


def noise(seed: int) -> bytes:
    """A WRAM full of it: the first 128 KiB of SHAKE-128 of the seed's decimal digits."""
    return hashlib.shake_128(str(seed).encode()).digest(WRAM_BYTES)


def image(case: Case, done: Bytes) -> bytes:
    """The WRAM before a case: noise, in which the bytes that would end it do not stand, then its inputs."""
    wram = bytearray(noise(case.seed))
    for offset, value in done:
        if wram[offset : offset + len(value)] == value:
            wram[offset] ^= 0xFF
    for offset, value in case.wram:
        wram[offset : offset + len(value)] = value
    return bytes(wram)


def padded(rom: bytes) -> bytes:
    """The ROM filled up to a power of two: the core takes eight times as long to load any other."""
    size = _SMALLEST_ROM
    while size < len(rom):
        size *= 2
    return rom.ljust(size, b"\0")


async def run_cases(execution: Execution, rom: bytes, expect: Expect) -> Ran:
    """Run every case and compare. Raises NotRunHere, ChildFailed."""
    images = [image(case, expect.done) for case in expect.cases]
    to_run = [
        CaseToRun(before, case.frames, expect.done) for case, before in zip(expect.cases, images, strict=True)
    ]
    replies = await execution.run(padded(rom), to_run)
    judged = [
        _judge(case, before, reply, expect)
        for case, before, reply in zip(expect.cases, images, replies, strict=True)
    ]
    right = sum(outcome == "correct" for outcome, _ in judged)
    wrams = tuple(reply.wram for reply in replies)
    for number, (outcome, detail) in enumerate(judged, 1):
        if outcome != "correct":
            where = f"case {number} of {len(judged)}: " if len(judged) > 1 else ""
            return Ran(outcome, where + detail, len(judged), right, wrams)
    said = f"{right} cases as expected" if right > 1 else "as expected"
    return Ran("correct", said, len(judged), right, wrams)


def _judge(case: Case, before: bytes, reply: CaseReply, expect: Expect) -> tuple[Outcome, str]:
    if reply.ended == "not_finished":
        return "no_finish", f"not done after {reply.frames} frames"
    if reply.ended == "late":
        return "time_out", "the emulation took too long"
    if reply.ended != "finished":
        return "crash", "the core ended by this code"
    for offset, value in case.expect:
        found = reply.wram[offset : offset + len(value)]
        if found != value:
            return "wrong", f"{_at(offset)} is {_hex(found)}, expected {_hex(value)}"
    if expect.allow_write is not None:
        named = [(offset, offset + len(value) - 1) for offset, value in case.expect]
        stray = first_difference(before, reply.wram, [*expect.allow_write, *named])
        if stray is not None:
            return "wrong", f"{_at(stray)} was written ({before[stray]:02X} to {reply.wram[stray]:02X})"
    return "correct", "as expected"


def first_difference(before: bytes, after: bytes, allowed: Iterable[tuple[int, int]]) -> int | None:
    """The first offset outside the ranges (both ends included) at which two texts of one length differ."""
    start = 0
    for first, last in [*sorted(allowed), (len(before), len(before))]:
        if first > start and before[start:first] != after[start:first]:
            return next(n for n in range(start, first) if before[n] != after[n])
        start = max(start, last + 1)
    return None


class MapperError(ValueError):
    """An address that is no ROM in the item's mapping: the item's mistake, not the answer's."""


def rom_offset(address: int, *, hirom: bool) -> int:
    """Where a SNES address lies in the ROM's file, LoROM or HiROM. Raises MapperError."""
    bank, within = address >> 16, address & 0xFFFF
    if hirom and bank not in (0x7E, 0x7F) and (within >= 0x8000 or bank & 0x40):
        return (bank & 0x3F) << 16 | within
    if not hirom and bank not in (0x7E, 0x7F) and within >= 0x8000:
        return (bank & 0x7F) << 15 | within & 0x7FFF
    raise MapperError(f"${address:06X} is no address of a {'HiROM' if hirom else 'LoROM'}'s ROM")


def compare_rom(vanilla: bytes, patched: bytes, expect: RomExpect, *, hirom: bool) -> str | None:
    """What a patch did that it must not, or left undone; None where all is as expected. Raises MapperError."""
    if len(patched) != len(vanilla):
        return f"the ROM has {len(patched)} bytes, {len(vanilla)} before"
    for address, value in expect.bytes:
        start = rom_offset(address, hirom=hirom)
        found = patched[start : start + len(value)]
        if found != value:
            return f"${address:06X} is {_hex(found)}, expected {_hex(value)}"
    if expect.allow is not None:
        stray = first_difference(vanilla, patched, _file_ranges(expect.allow, hirom))
        if stray is not None:
            return f"file offset {stray:06X} was changed ({vanilla[stray]:02X} to {patched[stray]:02X})"
    return None


def _file_ranges(ranges: Ranges, hirom: bool) -> Sequence[tuple[int, int]]:
    return [(rom_offset(first, hirom=hirom), rom_offset(last, hirom=hirom)) for first, last in ranges]


def _at(offset: int) -> str:
    return f"${0x7E0000 + offset:06X}"


def _hex(data: bytes, most: int = 8) -> str:
    return data[:most].hex(" ").upper() + (" …" if len(data) > most else "")
