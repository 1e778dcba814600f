"""Small works that come at once share a commit, and none of them can harm another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from backend.store import Transaction, leases, open_database


async def test_works_share_a_commit_and_one_that_fails_undoes_itself_alone(tmp_path: Path) -> None:
    database = await open_database(tmp_path / "hafs.db")

    def adding(name: str, *, fails: bool = False) -> Callable[[Transaction], Coroutine[Any, Any, str]]:
        async def work(transaction: Transaction) -> str:
            await leases.take(transaction, name, leases.this_process())
            if fails:
                raise ValueError(name)
            return name

        return work

    version = await database.data_version()
    works = [database.write(adding(f"r{n}", fails=n == 3), heavy=n % 2 == 1) for n in range(8)]
    results = await asyncio.gather(*works, return_exceptions=True)
    assert [r if isinstance(r, str) else type(r) for r in results] == [
        ValueError if n == 3 else f"r{n}" for n in range(8)
    ]
    rows = await database.fetch_all("SELECT resource FROM leases ORDER BY resource")
    assert [row[0] for row in rows] == [f"r{n}" for n in range(8) if n != 3]
    assert await database.data_version() != version
    await database.close()


async def test_a_work_that_is_cancelled_is_committed_or_refused_before_its_caller_goes_on(
    tmp_path: Path,
) -> None:
    database = await open_database(tmp_path / "hafs.db")

    async def work(transaction: Transaction) -> None:
        await leases.take(transaction, "r", leases.this_process())

    task = asyncio.create_task(database.write(work))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert await database.fetch_value("SELECT count(*) FROM leases") == 1
    await database.close()


async def test_a_work_may_wait_for_its_transaction_only(tmp_path: Path) -> None:
    database = await open_database(tmp_path / "hafs.db")

    async def work(transaction: Transaction) -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="transaction only"):
        await database.write(work)
    await database.close()
