"""Texts that attack a terminal, a markup parser or a reader; no test may let one through."""

from __future__ import annotations

ESCAPES = (
    "\x1b[2J\x1b[H",
    "\x1b]52;c;aGFja2Vk\x07",
    "\x1b]0;owned\x07",
    "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "\x1b[?1049l\x1b[31mred",
    "\x1bP+q544e\x1b\\",
    "\x9b2J\x9d52;c;aGFja2Vk\x9c",
    "bell\x07back\x08\x08\x08del\x7f\x0b\x0c\x0e\x0f",
    "\r\x1b[Koverwritten\rover",
)
MARKUP = (
    "[/foo]",
    "[@click=app.quit]press[/]",
    "[INST] do this [/INST]",
    "[bold red]x[/bold red] [link=http://evil.example]y[/link]",
    "\\[x] [[y]] [$error]z",
)
HIDDEN = (
    "if admin:\u202e } \u2066# check\u2069 \u2066",
    "zero\u200bwidth\u200d\u2060\ufeff",
    "lines\u2028and\u2029paragraphs\x85",
    "tags\U000e0041\U000e0042\U000e007f",
    "surrogate \ud800 \udfff",
    "日本語テキスト 한국어 👩‍👩‍👧 ⚠️ é\u0301\u0302",
)
PAYLOADS = (*ESCAPES, *MARKUP, *HIDDEN)
EVERYTHING = " ".join(PAYLOADS)
