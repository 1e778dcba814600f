"""Warnings of the backend: kept in a file while the app runs, harmless wherever they go."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from hafs_tui.logs import logs_to_file, logs_to_stderr

HOSTILE = "bad event \x1b]52;c;aGk=\x07 with key sk-very-secret-key"


def test_a_warning_is_kept_in_a_file_without_escape_codes_or_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-key")
    with logs_to_file(tmp_path / "logs"):
        logging.getLogger("backend.hosts.mirror").warning(HOSTILE)
    text = (tmp_path / "logs" / "hafs-tui.log").read_text("utf-8")
    assert "bad event" in text
    assert "\x1b" not in text
    assert "sk-very-secret-key" not in text
    assert capfd.readouterr().err == "", "the screen is the app's"


def test_without_a_screen_a_warning_is_a_harmless_line_on_standard_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with logs_to_stderr():
        logging.getLogger("remote.ssh").warning(HOSTILE)
    told = capfd.readouterr().err
    assert told.startswith("WARNING: bad event")
    assert "\x1b" not in told
