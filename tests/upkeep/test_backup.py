"""Backups: a whole copy, and never in the place of what they are made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.settings import Workspace
from backend.store import campaigns, open_database
from backend.upkeep.backup import BackupError, backup


async def test_a_backup_can_be_opened_and_takes_no_file_unasked(ws: Workspace, tmp_path: Path) -> None:
    async with ws.db.transaction() as transaction:
        await campaigns.insert(
            transaction, name="a", provider="p", model="m", base_url=None, targets={"asm": 1}, temperature=0,
            max_tokens=None, seed=1, parallel=1, budget_usd=None, budget_requests=None,
        )  # fmt: skip
    made = await backup(ws, tmp_path / "copies" / "one.db")
    assert made.size_bytes > 0
    copy = await open_database(made.path)
    assert [campaign.name for campaign in await campaigns.every(copy)] == ["a"]
    await copy.close()
    with pytest.raises(BackupError, match="exists already"):
        await backup(ws, made.path)
    await backup(ws, made.path, overwrite=True)


async def test_a_backup_never_takes_the_place_of_the_database(ws: Workspace) -> None:
    with pytest.raises(BackupError, match="the database itself"):
        await backup(ws, ws.db.path, overwrite=True)
