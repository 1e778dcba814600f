"""Normal forms: what two texts must share to count as the same, for prose and for 65816 assembly.

Three forms, from the mildest to the strongest: `normalise_text` ignores how a text is typed,
`asm_lines` ignores what an assembler ignores, `normalise_assembly` also ignores the names and places that
a programmer chose, so that a snippet moved to another address is still found.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

from backend.similarity.fences import code_of

Normalise = Literal["text", "asm"]

# Characters that are seen by no reader but make a copy look new: soft hyphen, zero-width, joiners, BOM.
_INVISIBLE = dict.fromkeys([0x00AD, *range(0x200B, 0x2010), *range(0x2060, 0x2065), 0xFEFF])

_STRING_OR_COMMENT = re.compile(r'"[^"\n]*"|;.*')
_SPACES = re.compile(r"[ \t\r\f\v]+")
_AROUND_COMMA = re.compile(r" ?, ?")
_LABEL = re.compile(r"^ ?(\.*[a-z_]\w*):|^ ?(\.+\w+)(?= |$|=)", re.MULTILINE)
_WORD = re.compile(r"(?<![\w$!%])\.*[a-z_]\w*")
_ADDRESS = re.compile(r"(?<![#\w])(?P<open>[\[(]?)\$(?P<digits>[0-9a-f]+)\b")
_DATA = re.compile(r"^ ?(?:\.*\w+: ?)?(?:db|dw|dl|dd|incbin|incsrc|warnpc|fillbyte|padbyte)\b")


def normalise_text(text: str) -> str:
    """`text` in NFKC, case folded, without invisible characters, its whitespace collapsed to single spaces.

    The fold is repeated until it is stable, as Unicode's own NFKC_Casefold is defined (UAX #31), so the
    function is idempotent.
    """
    if text.isascii():
        return " ".join(text.lower().split())
    before = None
    while text != before:
        before = text
        text = unicodedata.normalize("NFKC", text.translate(_INVISIBLE)).casefold()
    return " ".join(text.split())


def asm_lines(text: str) -> tuple[str, ...]:
    """The lines of code in an answer as an assembler sees them.

    Taken from the fenced block (`fences.code_of`) or the whole text: comments, blank lines and stray
    backticks go, case is folded, spaces are collapsed and go around commas.
    """
    lines = (_code_line(line).strip("` ") for line in code_of(text).splitlines())
    return tuple(line for line in lines if line)


def _code_line(line: str) -> str:
    """`line` without its comment, folded; the leading space of an indented line is kept."""
    without_comment = _STRING_OR_COMMENT.sub(lambda found: found[0] if found[0][0] == '"' else "", line)
    return _AROUND_COMMA.sub(",", _SPACES.sub(" ", without_comment.lower())).rstrip()


def normalise_assembly(code: str, *, addresses: bool = True) -> str:
    """`code` as `asm_lines` sees it, its labels (and its `addresses`) renamed in order of appearance.

    Labels become `l1`, `l2`, ...; `$7E0010` becomes `$6.1`: the width is kept, since it chooses the
    instruction, and the number says which address it was. Immediate values and data are kept: two programs
    that differ in them do different things. Anonymous labels (`+`, `--`) are kept.
    """
    lines = [
        line for line in (_code_line(raw).strip("`") for raw in code_of(code).splitlines()) if line.strip()
    ]
    labels = _numbered(found[1] or found[2] for found in _LABEL.finditer("\n".join(lines)))
    places: dict[str, int] = {}
    return "\n".join(_rename(line, labels, places if addresses else None) for line in lines)


def _numbered(names: Iterable[str]) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for name in names:
        numbers.setdefault(name, len(numbers) + 1)
    return numbers


def _rename(line: str, labels: dict[str, int], places: dict[str, int] | None) -> str:
    line = _WORD.sub(lambda word: f"l{labels[word[0]]}" if word[0] in labels else word[0], line)
    if places is not None and not _DATA.match(line):
        line = _ADDRESS.sub(lambda found: _place(found, places), line)
    return line.strip()


def _place(found: re.Match[str], places: dict[str, int]) -> str:
    number = places.setdefault(found["digits"], len(places) + 1)
    return f"{found['open']}${len(found['digits'])}.{number}"


def same_answer(answer: str, reference: str, normalise: Normalise = "text") -> bool:
    """Whether `answer` says what `reference` says, after normalising.

    `text`: equality of `normalise_text`. `asm`: the first lines of the answer's code are the reference's
    lines, so an explanation after them does no harm. An empty reference equals only an empty answer.

    Raises ValueError for an unknown `normalise`.
    """
    if normalise == "text":
        return normalise_text(answer) == normalise_text(reference)
    if normalise == "asm":
        wanted = asm_lines(reference)
        given = asm_lines(answer)
        return given[: len(wanted)] == wanted if wanted else not given
    raise ValueError(f"unknown normaliser {normalise!r}: use 'text' or 'asm'")
