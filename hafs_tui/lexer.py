"""Colouring of code, line by line: 65816 assembly, and a plain lexer for everything else.

Colours help the eye and decide nothing: a line that the lexer does not understand is shown as it is. The
pieces of a line always join to the line.
"""

from __future__ import annotations

import re

Piece = tuple[str, str]
"""Text and the name of its style: "", comment, string, number, keyword, label, directive."""

_MNEMONICS = """
    adc and asl bcc bcs beq bge bit blt bmi bne bpl bra brk brl bvc bvs clc cld cli clv cmp cop cpx cpy dea dec
    dex dey eor ina inc inx iny jml jmp jsl jsr lda ldx ldy lsr mvn mvp nop ora pea pei per pha phb phd phk php
    phx phy pla plb pld plp plx ply rep rol ror rti rtl rts sbc sec sed sei sep sta stp stx sty stz tad tas tax
    tay tcd tcs tda tdc trb tsb tsa tsc tsx txa txs txy tya tyx wai wdm xba xce
"""
MNEMONICS = frozenset(_MNEMONICS.split())

_ASSEMBLY = re.compile(
    r"""(?P<comment>;.*)
    |(?P<string>"[^"]*"|'[^']*')
    |(?P<number>\#?(?:\$[0-9A-Fa-f]+|%[01]+|\b\d+\b))
    |(?P<label>^\s*[A-Za-z_.@?+-][\w.@?]*:|^\s*[+-]+(?=\s|$))
    |(?P<directive>^\s*\.[A-Za-z]\w*|![A-Za-z_]\w*|%[A-Za-z_]\w*
        |\b(?:org|lorom|hirom|exlorom|exhirom|norom|db|dw|dl|dd|incsrc|incbin|macro|endmacro|if|elseif|else|endif
        |pushpc|pullpc|base|fill|fillbyte|pad|namespace|table|cleartable|arch|print|assert|struct|endstruct)\b)
    |(?P<word>[A-Za-z_]\w*)""",
    re.VERBOSE | re.IGNORECASE,
)

_GENERIC = re.compile(
    r"""(?P<comment>\#.*|//.*|;;.*)
    |(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
    |(?P<number>\b0x[0-9A-Fa-f]+\b|\b\d+(?:\.\d+)?\b)
    |(?P<keyword>\b(?:def|class|return|if|elif|else|for|while|import|from|fn|let|const|var|function|struct|int|void
        |true|false|null|None|True|False|async|await|static|public|private|break|continue|try|except|with)\b)""",
    re.VERBOSE,
)

_ASSEMBLY_NAMES = frozenset(("asm", "65816", "65c816", "assembly", "snes", "asar", "ca65", "s"))
_FENCE = re.compile(r"^\s*(?:```+|~~~+)\s*([\w+-]*)\s*$")


def assembly(line: str) -> list[Piece]:
    """The pieces of a line of 65816 assembly."""
    return [
        (
            text,
            ("keyword" if text[:3].lower() in MNEMONICS and len(text) == 3 else "")
            if kind == "word"
            else kind,
        )
        for text, kind in _pieces(_ASSEMBLY, line)
    ]


def generic(line: str) -> list[Piece]:
    """The pieces of a line of some other language."""
    return _pieces(_GENERIC, line)


def _pieces(pattern: re.Pattern[str], line: str) -> list[Piece]:
    pieces: list[Piece] = []
    at = 0
    for match in pattern.finditer(line):
        if match.start() > at:
            pieces.append((line[at : match.start()], ""))
        pieces.append((match.group(), match.lastgroup or ""))
        at = match.end()
    if at < len(line):
        pieces.append((line[at:], ""))
    return pieces


def looks_like_assembly(text: str) -> bool:
    """Whether most lines begin with a mnemonic, a label or a directive: for answers that carry no fence."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    code = sum(1 for line in lines if _is_code(line))
    return bool(lines) and code * 2 > len(lines)


def _is_code(line: str) -> bool:
    mnemonic = line[:3].lower() in MNEMONICS and not line[3:4].isalpha()
    return mnemonic or line.startswith((";", ".", "!")) or line.endswith(":")


def colour(text: str) -> list[list[Piece]]:
    """The pieces of each line of a text: fenced blocks by their language, bare assembly, prose plain."""
    bare = looks_like_assembly(text)
    language: str | None = None
    fenced = False
    lines: list[list[Piece]] = []
    for line in text.split("\n"):
        fence = _FENCE.match(line)
        if fence:
            fenced = not fenced
            language = fence.group(1).lower() if fenced else None
            lines.append([(line, "comment")])
        elif fenced and language not in _ASSEMBLY_NAMES and language:
            lines.append(generic(line))
        elif fenced or bare:
            lines.append(assembly(line))
        else:
            lines.append([(line, "")])
    return lines
