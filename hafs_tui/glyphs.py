"""Turns every character that acts on a terminal, or hides, into a glyph that can be seen.

The pure half of `sanitize.py`, which says why: the command line uses it without importing Textual.
"""

from __future__ import annotations

from collections.abc import Iterator

# Format characters (category Cf), line and paragraph separators, and letters that draw nothing.
# Zero-width joiners are among them: they break no text that our users read, and they hide in code.
_INVISIBLE = (
    (0x00AD, 0x00AD), (0x034F, 0x034F), (0x0600, 0x0605), (0x061C, 0x061C), (0x06DD, 0x06DD),
    (0x070F, 0x070F), (0x0890, 0x0891), (0x08E2, 0x08E2), (0x115F, 0x1160), (0x17B4, 0x17B5),
    (0x180B, 0x180F), (0x200B, 0x200F), (0x2028, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164),
    (0xFE00, 0xFE0D), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFFB), (0xFFFE, 0xFFFF),
    (0x110BD, 0x110BD), (0x110CD, 0x110CD), (0x13430, 0x1343F), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A),
    (0xE0000, 0xE01EF),
)  # fmt: skip
_EMOJI_SELECTORS = (0xFE0E, 0xFE0F)
_REPLACEMENT = "\ufffd"


def _hostile() -> Iterator[tuple[int, str]]:
    """Each character that must not reach a terminal, with the glyph or name that stands for it."""
    for code in range(0x20):
        yield code, chr(0x2400 + code)
    yield 0x7F, "\u2421"
    for code in range(0x80, 0xA0):
        yield code, f"‹{code:02X}›"
    for first, last in _INVISIBLE:
        for code in range(first, last + 1):
            yield code, f"‹{code:04X}›"
    for code in range(0xD800, 0xE000):
        yield code, _REPLACEMENT
    # These two only choose between two drawings of one sign, and terminals disagree about its width.
    for code in _EMOJI_SELECTORS:
        yield code, ""


_ONE_LINE: dict[int, str] = dict(_hostile())
_TEXT: dict[int, str] = {code: glyph for code, glyph in _ONE_LINE.items() if chr(code) not in "\n\t"}
# In the second wall a glyph takes one cell, whatever it stands for: the line is measured already.
WALL: dict[int, str] = {code: glyph if len(glyph) == 1 else _REPLACEMENT for code, glyph in _TEXT.items()}
WALL |= {ord("\n"): "\u240a", ord("\t"): "\u2409"}


def sanitize(text: str) -> str:
    """`text` with every control, bidirectional and invisible character made visible.

    Newlines and tabs stay; a carriage return before a newline goes without a trace, since it is only
    how Windows ends a line. The result never holds a character that acts on a terminal.
    """
    return text.replace("\r\n", "\n").translate(_TEXT)


def one_line(text: str) -> str:
    """`sanitize` for a row, a title or a message: newlines and tabs become glyphs too."""
    return text.replace("\r\n", "\n").translate(_ONE_LINE)
