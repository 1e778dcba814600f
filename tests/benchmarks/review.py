"""The reviewer beside very many samples: what a person waits for. `REVIEW_ROWS=1000000` says how many."""

from __future__ import annotations

import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from textual.pilot import Pilot

from backend.review import queues
from backend.settings import open_workspace
from backend.settings.workspace import Workspace
from backend.store import open_database, samples
from backend.store.samples import Filter
from hafs_tui.app import HafsApp
from hafs_tui.background import Background
from hafs_tui.screens.review import ReviewScreen
from hafs_tui.widgets.code_view import CodeView

DECISIONS, SEARCHES = 500, 100
_COLUMNS = (
    "uid, domain, family, source, state, instruction, input, output, score, provider, model, "
    "exact_hash, created_at"
)
_ROWS = """
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
SELECT 'u' || i, CASE i % 3 WHEN 0 THEN 'asm' WHEN 1 THEN 'oracle' ELSE 'words' END, 'f' || i % 9973, 'generated',
  CASE i % 10 WHEN 0 THEN 'approved' WHEN 1 THEN 'gated' ELSE 'pending' END,
  'Write a routine that clears buffer ' || i || ' in bank ' || (i % 128), '',
  'lda #$' || printf('%04x', i % 65536) || char(10) || replace(hex(zeroblob(60)), '00', 'sta $' || i % 97 || ' ') ||
  char(10) || 'rts ; token' || (i * 7919 % 10007), i * 7919 % 1000 / 1000.0, 'openai', 'model', 'h' || i, 1.7e9 + i
FROM n
"""


async def run() -> AsyncIterator[str]:
    rows = int(os.environ.get("REVIEW_ROWS", "100000"))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(os.environ.get("REVIEW_HOME", folder))
        await make(home, rows)
        async with open_workspace(home) as ws:
            yield f"{rows:,} samples"
            async for line in backend(ws, rows):
                yield line
        async with open_workspace(home) as ws, Background() as background:
            async for line in screen(ws, background):
                yield line


async def make(home: Path, rows: int) -> None:
    """A workspace with so many samples, by SQL alone: the triggers' work is done once, at the end."""
    path = home / "training" / "hafs.db"
    if path.exists():
        return
    await (await open_database(path)).close()
    db = sqlite3.connect(path, isolation_level=None)
    triggers = db.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'samples'"
    )
    kept = triggers.fetchall()
    db.execute("PRAGMA synchronous = OFF")
    db.execute("BEGIN")
    for name, _ in kept:
        db.execute(f"DROP TRIGGER {name}")
    db.execute(f"INSERT INTO samples ({_COLUMNS}) {_ROWS}", (rows,))
    db.execute(
        "INSERT INTO revisions SELECT id, 1, instruction, input, output, 'model', created_at FROM samples"
    )
    db.execute("INSERT INTO samples_fts (samples_fts) VALUES ('rebuild')")
    for _, sql in kept:
        db.execute(sql)
    db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


async def timed(job: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    await job()
    return (time.perf_counter() - began) * 1000


def p95(times: list[float]) -> float:
    return statistics.quantiles(times, n=20)[-1]


async def backend(ws: Workspace, rows: int) -> AsyncIterator[str]:
    pending = Filter(states=("pending",))
    for order in queues.ORDERS:
        first = await timed(lambda order=order: queues.first(ws, pending, order, limit=200))  # type: ignore[misc]
        whole = await timed(lambda order=order: queues.ids(ws, pending, order))  # type: ignore[misc]
        yield f"queue {order}: first 200 in {first:.0f} ms (of 300), all in {whole:.0f} ms"
    yield f"counts of a filter: {await timed(lambda: queues.counts(ws, Filter(domain='asm'))):.0f} ms"
    for words in ("token{n}", "routine buffer {n}", "routine", "clears rout"):
        times = [
            await timed(
                lambda n=n, words=words: samples.ids(  # type: ignore[misc]
                    ws.db, Filter(states=("pending",), text=words.format(n=n * 97 % 10007)), limit=200
                )
            )
            for n in range(SEARCHES)
        ]
        yield f"search {words!r}: p95 {p95(times):.1f} ms (of 100), newest first"


async def screen(ws: Workspace, background: Background) -> AsyncIterator[str]:
    app = HafsApp(ws, background)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        began = time.perf_counter()
        await app.switch_mode("review")
        review = app.screen
        assert isinstance(review, ReviewScreen)
        await drawn(review, pilot)
        yield f"first sample on screen: {(time.perf_counter() - began) * 1000:.0f} ms (of 300)"
        deadline = time.monotonic() + 60
        while review.queue.row_count <= 1000 and time.monotonic() < deadline:
            await pilot.pause(0.05)
        times = []
        for _ in range(DECISIONS):
            began = time.perf_counter()
            await review.do_approve()
            review.query_one(CodeView).render_line(0)
            times.append((time.perf_counter() - began) * 1000)
            await pilot.pause()
        yield f"decision and the next drawn: median {statistics.median(times):.1f} ms, p95 {p95(times):.1f} ms (of 16)"
        jumps = []
        for part in (1, 3, 2, 7, 5, 4, 6):
            began = time.perf_counter()
            review.queue.cursor = review.queue.row_count * part // 8
            await drawn(review, pilot)
            jumps.append((time.perf_counter() - began) * 1000)
        yield f"jump to a position: median {statistics.median(jumps):.0f} ms, all {[round(j) for j in jumps]} (of 50)"


async def drawn(review: ReviewScreen, pilot: Pilot[None]) -> None:
    """Until the card of the sample in hand is shown."""
    card = review.query_one(CodeView)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        identifier = review.queue.cursor_id
        if identifier is not None and f"sample {identifier} " in card.render_line(0).text:
            return
        await pilot.pause(0)
    raise TimeoutError("the card was never drawn")
