"""asar and the core are found where the settings, the environment or the known folders have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.execution.tools import Tools, asar_version, core_version, find_tools
from backend.settings import Workspace, models
from backend.upkeep.doctor import examine


def test_what_is_named_is_taken_or_missing(
    tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "asar"
    mine.write_text("")
    assert find_tools(models.Tools(asar=mine)).asar.path == mine
    gone = find_tools(models.Tools(asar=tmp_path / "gone"))
    assert gone.asar.path is None
    assert gone.asar.reason == f"tools.asar in settings.toml names {tmp_path / 'gone'}, which is no file"
    assert gone.core == tools.core
    monkeypatch.setenv("HAFS_ASAR", str(mine))
    monkeypatch.setenv("HAFS_SNES_CORE", str(tmp_path / "no core"))
    found = find_tools(models.Tools())
    assert found.asar.path == mine
    assert found.core.reason == f"HAFS_SNES_CORE names {tmp_path / 'no core'}, which is no file"


def test_asar_is_found_on_the_path_first(
    tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "asar"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_tools(models.Tools()).asar.path == mine


def test_versions_are_told_without_loading_anything_here(tools: Tools) -> None:
    assert tools.asar.path
    assert tools.core.path
    assert asar_version(tools.asar.path).startswith("Asar 1.91")
    assert core_version(tools.core.path) == "bsnes-mercury v094 (Balanced)"
    with pytest.raises(OSError, match="is no libretro core"):
        core_version(tools.asar.path)


async def test_doctor_says_what_was_found_and_what_brings_it(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {check.name: check for check in await examine(ws)}
    assert "Asar 1.91" in found["asar"].detail
    assert "Balanced" in found["snes core"].detail
    assert "performance" not in found["snes core"].detail
    monkeypatch.setenv("HAFS_ASAR", "/no/asar")
    monkeypatch.setenv("HAFS_SNES_CORE", __file__)
    missing = {check.name: check for check in await examine(ws)}
    assert (missing["asar"].found, missing["snes core"].found) == (False, False)
    assert "HAFS_ASAR names /no/asar" in missing["asar"].detail
    assert "is no libretro core" in missing["snes core"].detail
    assert missing["asar"].remedy
    assert missing["snes core"].remedy
