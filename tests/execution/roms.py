"""A small ROM for tests of the execution room: it calls `Answer`, then says that it is done."""

from __future__ import annotations

from typing import Any

from backend.execution.expectations import Mode, read_expect
from backend.execution.items import Task

HEADER = """lorom
org $00FFC0
db "HAFS TEST            "
db $20,$00,$08,$00,$01,$00,$00
org $00FFE0
dw 0,0,0,0,0,0,0,0,0,0,0,0,0,0,Reset,0
org $008000
Reset:
    sei : clc : xce
    rep #$38
    ldx #$1FFF : txs
    lda #$0000 : tcd
    sep #$30
    phk : plb
    stz $4200
"""
ROUTINE = HEADER + "    jsr Answer\n    sep #$30\n    lda #$A5 : sta $7EFFF0\n    stp\n;@ANSWER@\n"
VANILLA = HEADER + (
    "Hook:\n    lda #$01 : sta $10 : nop\n    lda #$A5 : sta $7EFFF0\n    stp\norg $00F000\nFree:\n    rts\n"
    "org $01FFFF\n    db $00\n"
)
DONE = {"7EFFF0": "A5"}
STACK = ["001F00", "001FFF"]
# $10 plus one to $11
ADDS = [
    {"seed": 1, "wram": {"7E0010": "07"}, "expect": {"wram": {"7E0011": "08"}}},
    {"seed": 2, "wram": {"7E0010": "FF"}, "expect": {"wram": {"7E0011": "00"}}},
]
RIGHT = "Answer:\n    lda $10\n    inc a\n    sta $11\n    rts"


def task(mode: Mode = "routine", setup: str = ROUTINE, label: str | None = "Answer", **expect: Any) -> Task:
    """A task whose cases are `ADDS` unless others are given."""
    fields = {"frames": 4, "done": DONE, "cases": ADDS} | expect
    return Task(mode, setup, read_expect(fields), label)
