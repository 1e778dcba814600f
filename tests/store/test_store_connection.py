"""The database: what is committed stays, what fails leaves nothing, and viewers notice every change."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from backend.store import StoreError, campaigns, leases, open_database, samples
from backend.store.connection import migrations
from backend.store.leases import LeaseHeldError


async def _campaign(path: Path, name: str) -> None:
    database = await open_database(path)
    async with database.transaction() as transaction:
        await campaigns.insert(
            transaction, name=name, provider="p", model="m", base_url=None, targets={"asm": 1}, temperature=0,
            max_tokens=None, seed=1, parallel=1, budget_usd=None, budget_requests=None,
        )  # fmt: skip
    await database.close()


async def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    database = await open_database(tmp_path / "hafs.db")

    async def fail_half_way() -> None:
        async with database.transaction() as transaction:
            await transaction.execute("INSERT INTO leases VALUES ('a', 'b', 1)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_half_way()
    assert await database.fetch_value("SELECT count(*) FROM leases") == 0
    await database.close()


async def test_a_cancelled_transaction_does_not_block_the_next(tmp_path: Path) -> None:
    database = await open_database(tmp_path / "hafs.db")
    inside = asyncio.Event()

    async def hang() -> None:
        async with database.transaction() as transaction:
            await transaction.execute("INSERT INTO leases VALUES ('a', 'b', 1)")
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await inside.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with database.transaction() as transaction:
        await transaction.execute("INSERT INTO leases VALUES ('c', 'd', 1)")
    assert [r[0] for r in await database.fetch_all("SELECT resource FROM leases")] == ["c"]
    await database.close()


async def test_viewers_notice_inserts_and_updates_of_another_process(tmp_path: Path) -> None:
    path = tmp_path / "hafs.db"
    viewer = await open_database(path)
    before = await viewer.data_version()
    await _campaign(path, "a")
    after = await viewer.data_version()
    assert after != before
    first = await viewer.fetch_value("SELECT change FROM campaigns")
    writer = await open_database(path)
    async with writer.transaction() as transaction:
        await campaigns.set_wish(transaction, 1, "pause")
    assert await viewer.data_version() != after
    assert await viewer.fetch_value("SELECT change FROM campaigns") > first, (
        "an update has a later change number"
    )
    await writer.close()
    await viewer.close()


async def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "hafs.db"
    await _campaign(path, "a")
    with sqlite3.connect(path) as raw:
        raw.execute(f"PRAGMA user_version = {migrations()[-1][0] + 1}")
    with pytest.raises(StoreError, match="newer hafs-tui"):
        await open_database(path)
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT name FROM campaigns").fetchall() == [("a",)]


async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "hafs.db"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreError, match="damaged"):
        await open_database(path)
    assert path.read_bytes() == b"this is no database" * 100


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        await open_database(tmp_path / "file" / "hafs.db")


async def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "hafs.db"
    await _campaign(path, "a")
    database = await open_database(path)
    async with database.transaction() as transaction:
        pages = await transaction.fetch_value("PRAGMA page_count")
        await transaction.fetch_value(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="the disk is full; nothing was lost"):
        async with database.transaction() as transaction:
            await transaction.execute("INSERT INTO leases VALUES (?, 'b', 1)", ("x" * 200_000,))
    assert (await campaigns.every(database))[0].name == "a"
    await database.close()


async def test_two_programs_that_start_at_once_migrate_once(tmp_path: Path) -> None:
    databases = await asyncio.gather(*(open_database(tmp_path / "hafs.db") for _ in range(4)))
    assert {await d.fetch_value("PRAGMA user_version") for d in databases} == {migrations()[-1][0]}
    for database in databases:
        await database.close()


async def test_a_lease_is_one_owners_until_it_ends_or_dies(tmp_path: Path) -> None:
    database = await open_database(tmp_path / "hafs.db")
    async with leases.hold(database, "campaign:a"):
        with pytest.raises(LeaseHeldError):
            async with leases.hold(database, "campaign:a"):
                pass
    async with database.transaction() as transaction:
        # A process of this machine that does not live: its pid is free, or another process's by start time.
        dead = leases.this_process().rsplit(":", 1)[0] + ":1.00"
        await leases.take(transaction, "campaign:a", dead)
    async with leases.hold(database, "campaign:a"):
        assert await leases.holder(database, "campaign:a") == leases.this_process()
    assert await leases.holder(database, "campaign:a") is None
    await database.close()


async def test_an_owner_whose_lease_another_took_stops_working(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_S", 0.01)
    database = await open_database(tmp_path / "hafs.db")

    async def work() -> None:
        async with leases.hold(database, "campaign:a"):
            async with database.transaction() as transaction:
                # As after a sleep of the machine: the lease had expired, and somebody else is at work.
                await transaction.execute("UPDATE leases SET owner = 'elsewhere:1:1.00'")
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    async with asyncio.timeout(10):
        with pytest.raises(LeaseHeldError, match="elsewhere"):
            await task
    assert await leases.holder(database, "campaign:a") == "elsewhere:1:1.00"
    await database.close()


async def test_an_owner_whose_clock_was_set_a_little_still_lives(tmp_path: Path) -> None:
    database = await open_database(tmp_path / "hafs.db")
    place, _, started = leases.this_process().rpartition(":")
    async with database.transaction() as transaction:
        await leases.take(transaction, "campaign:a", f"{place}:{float(started) + 1:.2f}")
    assert await leases.holder(database, "campaign:a") is not None
    await database.close()


async def test_the_nearest_of_many_that_share_a_band_are_found(tmp_path: Path) -> None:
    database = await open_database(tmp_path / "hafs.db")
    async with database.transaction() as transaction:
        for n in range(1, 62):
            sample = await samples.insert(
                transaction, uid=str(n), domain="d", family="f", source="s", state="pending", instruction="i",
                input="", output=str(n), exact_hash=str(n), author="a",
            )  # fmt: skip
            shared = [1, 2, 3] if n == 61 else [1]
            await samples.insert_signature(transaction, sample, b"%d" % n, shared)
        found = await samples.sharing_bands(transaction, [1, 2, 3], limit=50)
    assert found[0] == (61, b"61")
    assert len(found) == 50
    await database.close()


async def test_a_backup_is_whole_while_others_write(tmp_path: Path) -> None:
    path = tmp_path / "hafs.db"
    await _campaign(path, "a")
    database = await open_database(path)
    await database.backup(tmp_path / "copy.db")
    await database.close()
    copy = await open_database(tmp_path / "copy.db")
    assert [c.name for c in await campaigns.every(copy)] == ["a"]
    assert await copy.fetch_value("PRAGMA integrity_check") == "ok"
    await copy.close()
