"""The reviewer's guide names the keys that there are: its tables are made from the action table.

`python -m tests.app.test_review_guide` writes them anew.
"""

from __future__ import annotations

import re
from pathlib import Path

from hafs_tui.actions import of_group
from hafs_tui.keymap import default_keys, shown_key

GUIDE = Path(__file__).parents[2] / "docs" / "review.md"


def key_table(group: str) -> str:
    """The keys of a mode as a Markdown table."""
    keys = default_keys()
    rows = [
        f"| {' '.join(f'`{shown_key(key)}`' for key in keys[action.id])} | {action.label} | {action.help} |"
        for action in of_group(group)
    ]
    return "\n".join(["| key | action | what it does |", "| --- | --- | --- |", *rows])


def tables(text: str) -> list[str]:
    return re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)


def test_the_guide_has_the_keys_of_the_action_table() -> None:
    found = [table.strip() for table in tables(GUIDE.read_text("utf-8"))]
    assert found == [key_table("review"), key_table("preferences")]


def write() -> None:
    text = GUIDE.read_text("utf-8")
    for old, group in zip(tables(text), ("review", "preferences"), strict=True):
        text = text.replace(old.strip(), key_table(group))
    GUIDE.write_text(text, "utf-8")


if __name__ == "__main__":
    write()
