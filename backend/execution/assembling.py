"""Assembles text by asar in the sandbox, and says what came of it.

Two layers keep files out of reach: what could read one is refused by its words before asar sees it, and the
sandbox shows asar nothing but its own folder. asar's exit status alone is believed: its texts are raw, and an
answer can print whatever it likes.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from backend.execution.pool import ChildFailed, Execution, NotRunHere

MOST_SOURCE = 256 * 1024
ANSWER_FILE = "answer.asm"
ANSWER_LINE = ";@ANSWER@"

AssemblyOutcome = Literal["assembled", "no_assembly", "refused", "too_big", "time_out", "crash", "not_run"]


@dataclass(frozen=True, slots=True)
class Assembly:
    """What asar made. `emitted` are the bytes that the answer itself wrote, None where they could not be
    counted; `warnings` and `detail` hold asar's own words: foreign text, raw."""

    outcome: AssemblyOutcome
    detail: str
    rom: bytes = b""
    emitted: int | None = None
    warnings: tuple[str, ...] = ()


# Every word of asar 1.91 that reads a file: its commands (assembleblock.cpp) and functions (asar_math.cpp).
_READS = re.compile(
    r"\b(incsrc|incbin|include|includefrom|includeonce|(?:can)?readfile[1-4]?|filesize)\b", re.IGNORECASE
)
# `table` is a command where a file follows it, and a name everywhere else.
_TABLE = re.compile(r"(?<![.\w!#$@?])table(?=\s*[\"']|\s+[^\s:;=,+\-*/)\]])", re.IGNORECASE)
_TABLE_OPERAND = re.compile(r"^\s*(?:[.\w?!]+:?\s+)?[a-z]{3}(?:\.[bwl])?\s+[#<>(\[]*$", re.IGNORECASE)
_PATH = re.compile(r"[\"'](?:/\w|\.\.?[/\\]|~[/\\]|[a-z]:[/\\]\w)", re.IGNORECASE)
_RESET_BYTES = re.compile(r"\breset\s+bytes\b", re.IGNORECASE)
# asar puts defines and arguments of macros into the text before it looks for commands, so a word can be made
# of pieces. Where the sandbox does not hide files, what could be pieced together is not run.
_PIECES = re.compile(r"!\{?\^*\w+\}?|<\w+>")
_JOINED = re.compile(r"\\[ \t]*\n[ \t]*")


_PLACE = re.compile(rf"^[ \t]*{ANSWER_LINE}[ \t]*$", re.MULTILINE)


def has_place(source: str) -> bool:
    """Whether a line of the source stands for the answer."""
    return _PLACE.search(source) is not None


def refusal(code: str) -> str | None:
    """Why this text is not given to asar, or None. Looks at words alone."""
    if len(code) > MOST_SOURCE:
        return f"{len(code)} characters of source, at most {MOST_SOURCE} are taken"
    if "\0" in code:
        return "a NUL character in the source"
    joined = _JOINED.sub("", code.replace("\r\n", "\n").replace("\r", "\n"))
    for number, line in enumerate(joined.split("\n"), 1):
        text = _without_comment(line)
        found = _READS.search(text)
        if found:
            return f"line {number}: {found[1].lower()} reads a file"
        table = _TABLE.search(text)
        if table and not _TABLE_OPERAND.match(text[: table.start()]):
            return f"line {number}: table reads a file"
        path = _PATH.search(text)
        if path:
            return f"line {number}: a path to a file"
    if _RESET_BYTES.search(joined):
        return "reset bytes would hide how many bytes are written"
    return None


def _without_comment(line: str) -> str:
    """The line up to its comment; the whole line where a quotation mark or a block comment leaves doubt."""
    start = line.find(";")
    if start < 0 or line[start : start + 3] == ";[[" or any(mark in line[:start] for mark in "\"'"):
        return line
    return line[:start]


def pieced_together(code: str) -> bool:
    """Whether asar puts text together in it, by defines or macros, that `refusal` could not read."""
    return _PIECES.search(code) is not None


async def assemble_source(execution: Execution, source: str, files: Mapping[str, str]) -> Assembly:
    """Assemble trusted source, an item's `setup`, to a ROM."""
    return await _assemble(execution, {"main.asm": source, **files}, None, None, hide_files=False)


async def assemble_answer(
    execution: Execution, code: str, *, source: str, files: Mapping[str, str], rom: bytes | None
) -> Assembly:
    """Assemble an answer's code within `source`, where the line `;@ANSWER@` stands for it; over `rom` where
    one is given. `files` are what the source includes. Lines in messages are the answer's own."""
    reason = refusal(code)
    if reason:
        return Assembly("refused", reason)
    mark = secrets.token_hex(12)
    included = f'print "{mark} ",bytes\nincsrc "{ANSWER_FILE}"\nprint "{mark} ",bytes'
    main, count = _PLACE.subn(lambda _: included, source, count=1)
    if not count:
        return Assembly("not_run", "not run: the item's setup has no line ;@ANSWER@")
    texts = {"main.asm": main, **files, ANSWER_FILE: code + "\n"}
    return await _assemble(execution, texts, rom, mark, hide_files=pieced_together(code))


async def _assemble(
    execution: Execution, files: Mapping[str, str], rom: bytes | None, mark: str | None, *, hide_files: bool
) -> Assembly:
    try:
        reply = await execution.assemble(files, "main.asm", rom, hide_files=hide_files)
    except NotRunHere as error:
        return Assembly("not_run", f"not run: {error}")
    except ChildFailed as error:
        return Assembly("crash", str(error))
    errors = reply.errors.decode("utf-8", "replace")
    lines = [line for line in errors.splitlines() if line.strip()]
    warnings = tuple(line for line in lines if re.search(r": warning:", line))
    if reply.overflow:
        return Assembly("too_big", "asar printed more than is read", warnings=warnings)
    if reply.late or reply.ended_by in ("SIGXCPU", "SIGKILL"):
        return Assembly("time_out", "asar was ended: it took too long", warnings=warnings)
    if reply.ended_by == "SIGXFSZ":
        return Assembly("too_big", "the file that asar writes grew too big", warnings=warnings)
    if reply.ended_by:
        return Assembly("crash", f"asar was ended by {reply.ended_by}", warnings=warnings)
    if reply.status:
        failed = [line for line in lines if re.search(r": error:", line)] or lines or ["asar said nothing"]
        return Assembly("no_assembly", failed[0], warnings=warnings)
    emitted = _emitted(reply.output.decode("utf-8", "replace"), mark) if mark else None
    if emitted == 0:
        return Assembly("no_assembly", "the answer emits no bytes", warnings=warnings, emitted=0)
    if not reply.rom:
        return Assembly("no_assembly", "it emits no bytes", warnings=warnings)
    return Assembly("assembled", "", reply.rom, emitted, warnings)


def _emitted(output: str, mark: str) -> int | None:
    """The bytes written between the two lines that carry the mark, which an answer cannot know."""
    counts = re.findall(rf"^{mark} (\d+)\s*$", output, re.MULTILINE)
    return int(counts[1]) - int(counts[0]) if len(counts) == 2 else None
