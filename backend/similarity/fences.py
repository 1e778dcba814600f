"""The code in an answer: Markdown's fenced blocks, and which of them counts.

Fences follow CommonMark (section 4.5): three or more backticks or tildes, closed by at least as many of the
same. A fence that is never closed, as in an answer that was cut, runs to the end of the text.
"""

from __future__ import annotations

import re

_OPEN = re.compile(r"^ {0,3}(?P<fence>`{3,}(?=[^`]*$)|~{3,})")


def fenced_blocks(text: str) -> list[str]:
    """The contents of the fenced blocks of `text`, in order, without their fences."""
    return [content for _, content in labelled_blocks(text)]


def labelled_blocks(text: str) -> list[tuple[str, str]]:
    """[(language, contents)] of the fenced blocks, in order. The language is the first word behind the opening
    fence, in lower case; empty where there is none."""
    blocks: list[tuple[str, str]] = []
    lines: list[str] = []
    fence = language = ""
    for line in text.splitlines():
        if not fence:
            opened = _OPEN.match(line)
            if opened:
                fence, lines = opened["fence"], []
                words = line[opened.end() :].split()
                language = words[0].lower() if words else ""
        elif _closes(line, fence):
            blocks.append((language, "\n".join(lines)))
            fence = ""
        else:
            lines.append(line)
    if fence:
        blocks.append((language, "\n".join(lines)))
    return blocks


def _closes(line: str, fence: str) -> bool:
    mark = line.strip()
    return len(mark) >= len(fence) and set(mark) == {fence[0]} and not line.startswith("    ")


def code_of(text: str, label: str | None = None) -> str:
    """The code in an answer (`BENCHMARKS.md`): the fenced block that defines `label`, else the longest block
    (the first of equals), else the whole text."""
    blocks = fenced_blocks(text)
    if not blocks:
        return text
    if label:
        defines = re.compile(rf"^\s*{re.escape(label)}\s*:", re.MULTILINE)
        for block in blocks:
            if defines.search(block):
                return block
    return max(blocks, key=len)
