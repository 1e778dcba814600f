"""What a widget shows as text, and what a screen looks like as a stored picture."""

from __future__ import annotations

import time
from typing import Any

import pytest
from pytest_textual_snapshot import SVGImageExtension, normalize_svg
from syrupy.assertion import SnapshotAssertion
from textual.pilot import Pilot
from textual.widget import Widget

from hafs_tui import format as fmt
from tests.app.stages import AT


def shown(widget: Widget) -> str:
    """The lines of a line-drawn widget as they are on the screen now."""
    return "\n".join(widget.render_line(y).text for y in range(widget.size.height))


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """`2 h ago` stays `2 h ago`: screens measure from a fixed moment."""
    monkeypatch.setattr(fmt, "ago", lambda at: f"{fmt.duration(AT + 7200 - at)} ago")


async def look(pilot: Pilot[Any], snapshot: SnapshotAssertion) -> None:
    """Compare the screen, once it has come to rest, with the picture that was accepted.

    `--snapshot-update` accepts.
    """
    svg, before = pilot.app.export_screenshot(simplify=True), ""
    deadline = time.monotonic() + 20
    while normalize_svg(svg) != normalize_svg(before):
        assert time.monotonic() < deadline, "the screen never came to rest"
        await pilot.pause(0.3)
        svg, before = pilot.app.export_screenshot(simplify=True), svg
    assert svg == snapshot(extension_class=SVGImageExtension)
