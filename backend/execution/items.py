"""Judges one answer: its code is taken out, assembled, run, and compared, by the mode of its item.

An answer never raises: whatever it does is its outcome. What could not be executed here is `not_run`, with the
reason: neither passed nor failed.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from backend.execution.assembling import ANSWER_LINE, Assembly, assemble_answer, assemble_source
from backend.execution.expectations import AnswerExpect, Case, Expect, Mode, Outcome
from backend.execution.pool import ChildFailed, Execution, NotRunHere
from backend.execution.running import MapperError, Ran, compare_rom, run_cases
from backend.similarity.fences import code_of

ASSEMBLED, RAN = 0.25, 0.5


@dataclass(frozen=True, slots=True)
class Task:
    """What an answer is executed in: a benchmark item's or a seed's fields. `expect` without cases: it is
    right where it assembles. `around` is the source of a patch, in which `;@ANSWER@` stands for the answer."""

    mode: Mode
    setup: str
    expect: Expect = field(default_factory=Expect)
    label: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    around: str = ANSWER_LINE


@dataclass(frozen=True, slots=True)
class Executed:
    """What came of an answer. `detail` may hold words of asar or of the answer: foreign text, raw.

    `assembled`, `ran` and `right` are the steps it came to (None: not a step of this mode, or not run);
    `cases_right` of `cases` ended as expected; `emitted` are its bytes, where they were counted.
    """

    outcome: Outcome
    detail: str
    assembled: bool | None = None
    ran: bool | None = None
    right: bool | None = None
    cases: int = 0
    cases_right: int = 0
    emitted: int | None = None
    warnings: tuple[str, ...] = ()

    @property
    def score(self) -> float | None:
        """1 for a right answer; below it 0.25 for one that assembles, 0.5 for one whose cases all came to an
        end and up to 0.4 more for the share of them that were right; 0 for the rest. None: not run."""
        if self.outcome == "not_run":
            return None
        if self.right:
            return 1.0
        share = 0.4 * self.cases_right / self.cases if self.cases else 0.0
        return round((RAN if self.ran else ASSEMBLED) + share, 4) if self.assembled else 0.0


async def judge_answer(execution: Execution, task: Task, answer: str) -> Executed:
    """The outcome of one answer. It is not changed; nothing of it is believed but what it does."""
    if task.mode == "question":
        return await _question(execution, task, answer)
    code = await asyncio.to_thread(code_of, answer, task.label)
    if not code.strip():
        return Executed("no_answer", "the answer is empty")
    return await execute_code(execution, task, code)


async def execute_code(execution: Execution, task: Task, code: str) -> Executed:
    """As `judge_answer`, for code that was taken out of its answer already."""
    vanilla = b""
    if task.mode == "patch":
        made = await _own_rom(execution, task)
        if made.outcome != "assembled":
            return Executed("not_run", f"not run: the item's own setup is {made.outcome}: {made.detail}")
        vanilla = made.rom
        source = f"{_mapper(task.setup)}\n{task.around}\n"
        assembly = await assemble_answer(execution, code, source=source, files={}, rom=vanilla)
    else:
        assembly = await assemble_answer(execution, code, source=task.setup, files=task.files, rom=None)
    if assembly.outcome != "assembled":
        assembled = None if assembly.outcome == "not_run" else False
        return Executed(
            assembly.outcome, assembly.detail, assembled, right=assembled, warnings=assembly.warnings
        )
    return await _judge_rom(execution, task, vanilla, assembly)


async def _judge_rom(execution: Execution, task: Task, vanilla: bytes, assembly: Assembly) -> Executed:
    expect = task.expect

    def executed(outcome: Outcome, detail: str, ran: Ran | None = None) -> Executed:
        return Executed(
            outcome=outcome,
            detail=detail,
            assembled=True,
            ran=ran.ran if ran else None,
            right=None if outcome == "not_run" else outcome == "correct",
            cases=len(expect.cases),
            cases_right=ran.right if ran else 0,
            emitted=assembly.emitted,
            warnings=assembly.warnings,
        )

    if expect.max_size is not None and assembly.emitted is not None and assembly.emitted > expect.max_size:
        return executed("too_big", f"{assembly.emitted} bytes, at most {expect.max_size} are allowed")
    if task.mode == "patch" and expect.rom is not None:
        hirom = "hirom" in _mapper(task.setup)
        try:
            problem = await asyncio.to_thread(compare_rom, vanilla, assembly.rom, expect.rom, hirom=hirom)
        except MapperError as error:
            return executed("not_run", f"not run: the item's expect.rom: {error}")
        if problem:
            return executed("wrong", problem)
    if not expect.cases:
        return executed("correct", "it assembles" if expect.rom is None else "the ROM is as expected")
    try:
        ran = await run_cases(execution, assembly.rom, expect)
    except NotRunHere as error:
        return executed("not_run", f"not run: {error}")
    except ChildFailed as error:
        return executed("crash", str(error))
    return executed(ran.outcome, ran.detail, ran)


async def _own_rom(execution: Execution, task: Task) -> Assembly:
    """The ROM of the item's own setup, made once for each text."""
    key = "\0".join([task.setup, *(f"{name}\0{text}" for name, text in sorted(task.files.items()))])
    if key in execution.roms:
        return Assembly("assembled", "", execution.roms[key])
    made = await assemble_source(execution, task.setup, task.files)
    if made.outcome == "assembled":
        execution.roms[key] = made.rom
    return made


def _mapper(setup: str) -> str:
    """The directive by which the setup maps its ROM; asar's own default is LoROM."""
    found = re.search(
        r"^[ \t]*(lorom|hirom|exlorom|exhirom|sa1rom|sfxrom)\b", setup, re.MULTILINE | re.IGNORECASE
    )
    return found[1].lower() if found else "lorom"


# --- questions ------------------------------------------------------------------------------------------------

_ANSWER = re.compile(r"answer\s*(?:\*\*|__)?\s*:[ \t]*(?:\*\*|__)?[ \t]*(.*)", re.IGNORECASE)
_VALUE = re.compile(r"#?(?:\$|0x)([0-9a-f]+)|#?([0-9]+)", re.IGNORECASE)
_AROUND = " \t\r`*_\"'."


async def _question(execution: Execution, task: Task, answer: str) -> Executed:
    """A question's truth comes from running its setup; nothing of the answer is executed."""
    wanted = task.expect.answer
    if wanted is None:
        return Executed("not_run", "not run: the item has no expect.answer")
    given = answer_line(answer)
    if not given:
        return Executed("no_answer", "no line 'Answer: ...' in it")
    if wanted.kind == "text":
        right = _plain(given) in {_plain(text) for text in wanted.texts}
        return _answered(right, f"answered {given!r}, expected {wanted.texts[0]!r}")
    truth = await _truth(execution, task, wanted)
    if isinstance(truth, str):
        return Executed("not_run", f"not run: {truth}")
    value = read_value(given)
    if value is None:
        return _answered(False, f"answered {given!r}, which is no number")
    return _answered(value == truth, f"answered {given!r}, it is ${truth:0{2 * wanted.length}X}")


async def _truth(execution: Execution, task: Task, wanted: AnswerExpect) -> int | str:
    """The value that the setup leaves in WRAM, or why it cannot be known here."""
    made = await _own_rom(execution, task)
    if made.outcome != "assembled":
        return f"the item's own setup is {made.outcome}: {made.detail}"
    expect = task.expect
    frames = expect.cases[0].frames if expect.cases else 60
    cases = expect.cases[:1] or (Case(0, (), (), frames),)
    try:
        ran = await run_cases(execution, made.rom, Expect(cases=cases, done=expect.done))
    except (NotRunHere, ChildFailed) as error:
        return str(error)
    if not ran.wrams[0] or not ran.ran:
        return f"the item's own setup ends as {ran.outcome}: {ran.detail}"
    return int.from_bytes(ran.wrams[0][wanted.address : wanted.address + wanted.length], "little")


def answer_line(text: str) -> str:
    """What follows the last `Answer:`, on its line or, where nothing does, on the next one with text."""
    every = list(_ANSWER.finditer(text))
    if not every:
        return ""
    found = every[-1]
    line = found[1].strip(_AROUND)
    rest = text[found.end() :].strip().splitlines()
    return line or (rest[0].strip(_AROUND) if rest else "")


def read_value(text: str) -> int | None:
    """A number as decimal, `$` or `0x` hex, with nothing beside it."""
    found = _VALUE.fullmatch(text.strip(_AROUND).replace(",", "").replace(" ", ""))
    if not found:
        return None
    return int(found[1], 16) if found[1] else int(found[2])


def _plain(text: str) -> str:
    return " ".join(text.strip(_AROUND).casefold().split())


def _answered(right: bool, detail: str) -> Executed:
    return Executed("correct" if right else "wrong", "as expected" if right else detail, right=right)
