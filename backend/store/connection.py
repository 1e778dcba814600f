"""The workspace's database: connections that write, one that only reads, and migrations.

SQLite is the bus between everything that works and everything that shows. Writers use
`Database.transaction`, or `Database.write` where many small works come at once and may share a commit;
viewers use the reading connection, whose `data_version` changes whenever any other connection, in this
process or another, has committed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sqlite3
from array import array
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import aiosqlite

Row = TypeVar("Row")
Value = str | int | float | bytes | None

BUSY_TIMEOUT_MS = 15_000
HEAVY_AT_ONCE = 24


class StoreError(Exception):
    """The database cannot be used; the message names the file and the remedy."""


# A column that holds JSON text: `typed` decodes it.
Json = Annotated[Row, "json"]


def typed(cls: type[Row], row: sqlite3.Row) -> Row:
    """Build the dataclass `cls` from the columns of `row` that carry its fields' names.

    Columns typed `bool` come back as bool (or None), columns annotated `Json[...]` are decoded.
    """
    names, decoders = _columns(cast(Any, cls))
    values = [row[name] for name in names]
    for place, decode in decoders:
        if values[place] is not None:
            values[place] = decode(values[place])
    return cls(*values)


@cache
def _columns(cls: Any) -> tuple[tuple[str, ...], tuple[tuple[int, Callable[[Any], object]], ...]]:
    """The column of each field of `cls`, and [(place, decoder)] of those that are not taken as they are."""
    fields = dataclasses.fields(cls)
    decoders: list[tuple[int, Callable[[Any], object]]] = []
    for place, field in enumerate(fields):
        if str(field.type).startswith("Json["):
            decoders.append((place, json.loads))
        elif str(field.type) in ("bool", "bool | None"):
            decoders.append((place, bool))
    return tuple(field.name for field in fields), tuple(decoders)


class Queries:
    """Reading queries on one connection. Raises StoreError where the database cannot be read."""

    def __init__(self, path: Path, connection: aiosqlite.Connection) -> None:
        self.path = path
        self._connection = connection

    async def fetch_all(self, sql: str, parameters: Sequence[Value] = ()) -> list[sqlite3.Row]:
        try:
            return list(await self._connection.execute_fetchall(sql, parameters))
        except sqlite3.OperationalError as error:
            raise _explain(self.path, error) from error

    async def fetch_one(self, sql: str, parameters: Sequence[Value] = ()) -> sqlite3.Row | None:
        rows = await self.fetch_all(sql, parameters)
        return rows[0] if rows else None

    async def fetch_value(self, sql: str, parameters: Sequence[Value] = ()) -> Any:
        """The first column of the first row, None where there is no row."""
        row = await self.fetch_one(sql, parameters)
        return None if row is None else row[0]

    async def rows(self, cls: type[Row], sql: str, parameters: Sequence[Value] = ()) -> list[Row]:
        return [typed(cls, row) for row in await self.fetch_all(sql, parameters)]

    async def row(self, cls: type[Row], sql: str, parameters: Sequence[Value] = ()) -> Row | None:
        found = await self.fetch_one(sql, parameters)
        return None if found is None else typed(cls, found)


class Transaction(Queries):
    """An open write transaction: sees its own changes, commits when its block ends."""

    async def execute(self, sql: str, parameters: Sequence[Value] = ()) -> int:
        """Run one statement; the number of rows it changed."""
        cursor = await self._connection.execute(sql, parameters)
        return cursor.rowcount

    async def insert(self, sql: str, parameters: Sequence[Value] = ()) -> int:
        """Run one INSERT; the new row's id."""
        cursor = await self._connection.execute(sql, parameters)
        return cursor.lastrowid or 0

    async def execute_many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        await self._connection.executemany(sql, rows)


class _Direct(Transaction):
    """A transaction on a connection of the thread that runs it: its coroutines never wait."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._direct = connection

    async def fetch_all(self, sql: str, parameters: Sequence[Value] = ()) -> list[sqlite3.Row]:
        return self._direct.execute(sql, parameters).fetchall()

    async def fetch_one(self, sql: str, parameters: Sequence[Value] = ()) -> sqlite3.Row | None:
        return cast(sqlite3.Row | None, self._direct.execute(sql, parameters).fetchone())

    async def execute(self, sql: str, parameters: Sequence[Value] = ()) -> int:
        return self._direct.execute(sql, parameters).rowcount

    async def insert(self, sql: str, parameters: Sequence[Value] = ()) -> int:
        return self._direct.execute(sql, parameters).lastrowid or 0

    async def execute_many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        self._direct.executemany(sql, rows)


# Between two fetches the thread that reads lets the event loop in.
_ROWS_AT_ONCE = 512

Work = Callable[[Transaction], Coroutine[Any, Any, Row]]
"""What `Database.write` runs: it may wait for its transaction and for nothing else."""


class _Batch:
    """The connection on which works share commits, and the thread that it belongs to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self.waiting: deque[tuple[Work[Any], asyncio.Future[Any]]] = deque()
        self.heavy: deque[tuple[Work[Any], asyncio.Future[Any]]] = deque()
        self.called = asyncio.Event()
        self.closing = False
        self._connection: sqlite3.Connection | None = None

    def take(self) -> list[tuple[Work[Any], asyncio.Future[Any]]]:
        """What the next commit holds: all light works, and a few of the heavy ones."""
        taken = list(self.waiting)
        self.waiting.clear()
        taken += [self.heavy.popleft() for _ in range(min(len(self.heavy), HEAVY_AT_ONCE))]
        if self.heavy:
            self.called.set()
        return taken

    def commit(self, works: Sequence[Work[Any]]) -> list[tuple[Any, BaseException | None]]:
        """Run the works in one transaction, each in a savepoint of its own: [(result, error)], in order.

        What one work raises undoes that work alone. Where the transaction itself fails, every work has.
        """
        outcomes: list[tuple[Any, BaseException | None]] = []
        try:
            connection = self._connection = self._connection or _open_direct(self.path)
            transaction = _Direct(self.path, connection)
            connection.execute("BEGIN IMMEDIATE")
            try:
                for work in works:
                    outcomes.append(self._run(connection, transaction, work))
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.OperationalError as error:
            explained = _explain(self.path, error)
            return [(None, explained) for _ in works]
        except BaseException as error:
            return [(None, error) for _ in works]
        return outcomes

    def _run(
        self, connection: sqlite3.Connection, transaction: Transaction, work: Work[Any]
    ) -> tuple[Any, BaseException | None]:
        connection.execute("SAVEPOINT work")
        try:
            result = _finished(work(transaction))
        except Exception as error:
            if not connection.in_transaction:  # SQLite gave the whole of it up, as when the disk is full
                raise
            connection.execute("ROLLBACK TO work")
            connection.execute("RELEASE work")
            is_sqlite = isinstance(error, sqlite3.OperationalError)
            return None, _explain(self.path, error) if is_sqlite else error  # type: ignore[arg-type]
        connection.execute("RELEASE work")
        return result, None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _finished(coroutine: Coroutine[Any, Any, Row]) -> Row:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return cast(Row, end.value)
    coroutine.close()
    raise RuntimeError("a work of Database.write may wait for its transaction only")


def _numbers(cursor: sqlite3.Cursor) -> array[int]:
    found: array[int] = array("q")
    while rows := cursor.fetchmany(_ROWS_AT_ONCE):
        found.extend(row[0] for row in rows)
    return found


class _LongReader:
    """A connection for readings that take long, and the thread that it belongs to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="long reader")
        self._connection: sqlite3.Connection | None = None

    async def read(
        self, collect: Callable[[sqlite3.Cursor], Row], sql: str, parameters: Sequence[Value]
    ) -> Row:
        work = self._thread.submit(self._read, collect, sql, parameters)
        reading = asyncio.wrap_future(work)
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            if not work.cancel() and self._connection is not None:
                self._connection.interrupt()
            await asyncio.wait([reading])
            if not reading.cancelled():
                reading.exception()
            raise

    def _read(self, collect: Callable[[sqlite3.Cursor], Row], sql: str, parameters: Sequence[Value]) -> Row:
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
                self._connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
                self._connection.execute("PRAGMA query_only = ON")
            return collect(self._connection.execute(sql, parameters))
        except sqlite3.OperationalError as error:
            raise _explain(self.path, error) from error

    async def close(self) -> None:
        if self._connection is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown()


class Database(Queries):
    """The open database. Reading goes through the reading connection, outside of any transaction."""

    def __init__(self, path: Path, writer: aiosqlite.Connection, reader: aiosqlite.Connection) -> None:
        super().__init__(path, reader)
        self._writer = writer
        self._write_lock = asyncio.Lock()
        self._batch = _Batch(path)
        self._long = _LongReader(path)
        self._committer = asyncio.create_task(self._commit_batches(), name="group commit")

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """A write transaction, rolled back whole if its block raises.

        Raises StoreError when the disk is full or another process holds the database too long.
        """
        async with self._write_lock:
            try:
                await self._writer.execute("BEGIN IMMEDIATE")
                yield Transaction(self.path, self._writer)
                await self._writer.commit()
            except BaseException as error:
                # Shielded: a cancelled task must not leave the transaction open for the next one.
                await asyncio.shield(self._writer.rollback())
                if isinstance(error, sqlite3.OperationalError):
                    raise _explain(self.path, error) from error
                raise

    async def write(self, work: Work[Row], *, heavy: bool = False) -> Row:
        """Run `work` and commit it, together with the works that wait at the same time; its result, once it
        is committed. What it raises undoes what it wrote, and nothing of the others.

        `work` runs in a thread of its own and may wait for its transaction and for nothing else. A caller
        that is cancelled learns of it only when its work is committed or refused. Of `heavy` works (more than
        a few statements) few go into a commit, so that the light ones do not wait for all of them.

        Raises what `work` raises; StoreError as `transaction` does.
        """
        done: asyncio.Future[Row] = asyncio.get_running_loop().create_future()
        (self._batch.heavy if heavy else self._batch.waiting).append((work, done))
        self._batch.called.set()
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            await asyncio.wait([done])
            done.exception()
            raise

    async def _commit_batches(self) -> None:
        """Commits what waits, for as long as the database is open."""
        batch, loop = self._batch, asyncio.get_running_loop()
        while batch.waiting or batch.heavy or not batch.closing:
            await batch.called.wait()
            batch.called.clear()
            async with self._write_lock:
                taken = batch.take()
                if not taken:
                    continue
                works = [work for work, _ in taken]
                outcomes = await loop.run_in_executor(batch.thread, batch.commit, works)
            for (_, done), (result, error) in zip(taken, outcomes, strict=True):
                if error is None:
                    done.set_result(result)
                else:
                    done.set_exception(error)

    async def numbers(self, sql: str, parameters: Sequence[Value] = ()) -> array[int]:
        """The first column of every row, whole numbers of 64 bits: a million take 8 MB and no list of rows.

        Read on a connection of its own, so that no other reading waits; a caller that is cancelled ends it.
        Raises StoreError where the database cannot be read.
        """
        return await self._long.read(_numbers, sql, parameters)

    async def fetch_long(self, sql: str, parameters: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """Few rows that take long to find, such as counts of everything; else as `numbers`."""
        return await self._long.read(sqlite3.Cursor.fetchall, sql, parameters)

    async def data_version(self) -> int:
        """A number that changes when another connection has committed."""
        return int(await self.fetch_value("PRAGMA data_version"))

    async def backup(self, target: Path) -> None:
        """Write a consistent copy of the whole database, while others go on working.

        Raises StoreError where the copy is not whole; `target` is then as it was.
        """
        temporary = target.with_name(target.name + ".part")
        try:
            async with aiosqlite.connect(temporary) as copy:
                await self._connection.backup(copy)
                said = [str(row[0]) for row in await copy.execute_fetchall("PRAGMA integrity_check")]
            if said != ["ok"]:
                raise StoreError(
                    f"{self.path}: the copy is not whole, and was not kept: {'; '.join(said[:3])}"
                )
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    async def close(self) -> None:
        """Commit what waits, and let go of the file."""
        self._batch.closing = True
        self._batch.called.set()
        await self._committer
        await asyncio.get_running_loop().run_in_executor(self._batch.thread, self._batch.close)
        self._batch.thread.shutdown()
        await self._long.close()
        await self._writer.close()
        await self._connection.close()


def _explain(path: Path, error: sqlite3.OperationalError) -> StoreError:
    text = str(error)
    if "full" in text:
        return StoreError(
            f"{path}: the disk is full; nothing was lost. Free space (hafs-tui prune) and go on."
        )
    if "locked" in text:
        return StoreError(f"{path}: another program holds the database; close it and try again.")
    if "unable to open" in text:
        return StoreError(f"{path}: cannot be opened; check that the folder exists and is yours to write.")
    if "disk I/O" in text:
        return StoreError(
            f"{path}: the disk cannot be read or written ({text}); nothing that was stored is lost. "
            "Check its free space, your quota and the disk itself, then go on."
        )
    return StoreError(f"{path}: {text}")


def migrations() -> list[tuple[int, str]]:
    """The numbered SQL files, in order: [(number, text)]."""
    folder = resources.files("backend.store") / "migrations"
    files = sorted((f.name, f.read_text("utf-8")) for f in folder.iterdir() if f.name.endswith(".sql"))
    return [(int(name.split("_", 1)[0]), text) for name, text in files]


async def _migrate(path: Path, connection: aiosqlite.Connection) -> None:
    steps = migrations()
    newest = steps[-1][0]
    version = await Queries(path, connection).fetch_value("PRAGMA user_version")
    if version > newest:
        raise StoreError(
            f"{path}: made by a newer hafs-tui (schema {version}, this one knows {newest}). "
            "Upgrade the program, or name another workspace with --home."
        )
    for number, text in steps:
        if number <= version:
            continue
        # executescript commits by itself, so the transaction is part of the script; the check of
        # user_version inside it keeps two programs that start at once from migrating twice.
        await connection.execute("BEGIN EXCLUSIVE")
        if await Queries(path, connection).fetch_value("PRAGMA user_version") >= number:
            await connection.commit()
            continue
        try:
            for statement in _statements(text):
                await connection.execute(statement)
            await connection.execute(f"PRAGMA user_version = {number}")
            await connection.commit()
        except BaseException:
            await connection.rollback()
            raise


def _statements(script: str) -> Iterable[str]:
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


async def _connect(path: Path, *, read_only: bool) -> aiosqlite.Connection:
    connection = await aiosqlite.connect(path, isolation_level=None)
    connection.row_factory = sqlite3.Row
    try:
        await connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        if read_only:
            await connection.execute("PRAGMA query_only = ON")
        else:
            await connection.execute("PRAGMA journal_mode = WAL")
            await connection.execute("PRAGMA synchronous = FULL")
            await connection.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        await connection.close()  # its thread would keep the program from ending
        raise
    return connection


def _open_direct(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, cached_statements=256)
    connection.row_factory = sqlite3.Row
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


async def open_database(path: Path) -> Database:
    """Open (and make, and migrate) the database at `path`.

    Raises StoreError for a newer schema, a damaged file or a folder that cannot be written.
    """
    opened: list[aiosqlite.Connection] = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = await _connect(path, read_only=False)
        opened.append(writer)
        await _migrate(path, writer)
        reader = await _connect(path, read_only=True)
        opened.append(reader)
    except BaseException as error:
        for connection in opened:
            await connection.close()
        if isinstance(error, sqlite3.OperationalError):
            raise _explain(path, error) from error
        if isinstance(error, sqlite3.DatabaseError):
            raise StoreError(
                f"{path}: not a database, or damaged ({error}). It was left as it is; "
                "restore a backup beside it (hafs-tui backup made one) or name another --home."
            ) from error
        if isinstance(error, OSError):
            raise StoreError(f"{path.parent}: cannot be made or written: {error.strerror}") from error
        raise
    return Database(path, writer, reader)
