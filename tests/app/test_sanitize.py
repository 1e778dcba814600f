"""The gate: nothing that acts on a terminal or hides from a reader passes, and plain text is untouched."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.segment import Segment
from textual.color import Color

from hafs_tui.sanitize import ControlFilter, one_line, plain, sanitize
from tests.app.payloads import PAYLOADS

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=[]))
ACTING = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def acts(character: str) -> bool:
    return unicodedata.category(character) in ACTING


def test_every_acting_character_of_unicode_becomes_visible() -> None:
    left = [
        f"{code:04X}"
        for code in range(sys.maxunicode + 1)
        if acts(chr(code)) and chr(code) not in "\n\t" and acts(sanitize(chr(code))[:1] or "?")
    ]
    assert left == []


@given(ANY_TEXT)
def test_the_result_is_clean_encodable_and_stable(text: str) -> None:
    clean = sanitize(text)
    assert not [c for c in clean if acts(c) and c not in "\n\t"]
    assert sanitize(clean) == clean
    clean.encode("utf-8")
    assert "\n" not in one_line(text)
    assert "\t" not in one_line(text)


@given(
    st.text(
        alphabet=st.characters(categories=["L", "Nd", "P", "Sm", "Sc", "Zs"]).filter(lambda c: c not in "ᅟᅠㅤﾠ឴឵")
    )
)
def test_ordinary_text_is_untouched(text: str) -> None:
    assert sanitize(text) == text


@pytest.mark.parametrize("payload", PAYLOADS)
def test_plain_is_never_markup(payload: str) -> None:
    content = plain(payload)
    assert content.spans == []
    assert content.plain == sanitize(payload)


def test_newlines_and_tabs_stay_and_windows_line_ends_become_newlines() -> None:
    assert sanitize("a\r\n\tb\n") == "a\n\tb\n"
    assert sanitize("a\rb") == "a␍b"
    assert one_line("a\n\tb") == "a␊␉b"


@given(st.lists(ANY_TEXT, min_size=1, max_size=4))
def test_the_second_wall_lets_no_control_character_out(texts: list[str]) -> None:
    kept = ControlFilter().apply([Segment(text) for text in texts], Color(0, 0, 0))
    assert not [c for segment in kept for c in segment.text if acts(c)]
