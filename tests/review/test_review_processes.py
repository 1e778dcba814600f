"""Several processes at one database, and a kill in the middle: no decision is lost, none is there twice."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from pathlib import Path

from backend.review import deciding
from backend.settings import open_workspace
from backend.store import decisions, samples
from tests.fixtures.made_samples import put_samples

# Approves the ids that it is given, one after the other, and says so only after each call has returned.
DECIDER = """
import asyncio, json, sys
from pathlib import Path
from backend.review import deciding
from backend.settings import open_workspace

async def main(home, reviewer, ids):
    async with open_workspace(Path(home)) as ws:
        for sample_id in ids:
            decision = await deciding.approve(ws, sample_id, reviewer=reviewer)
            print(decision.sample_id, decision.id, flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
"""


async def start(home: Path, reviewer: str, ids: list[int]) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", DECIDER, str(home), reviewer, json.dumps(ids), stdout=PIPE
    )


async def said(process: Process) -> list[tuple[int, int]]:
    assert process.stdout is not None
    text = (await process.stdout.read()).decode()
    whole = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [(int(line.split()[0]), int(line.split()[1])) for line in whole]


async def test_what_was_said_to_be_decided_before_a_kill_is_decided_after_it(tmp_path: Path) -> None:
    async with open_workspace(tmp_path) as ws:
        ids = await put_samples(ws, 400)
    shown: list[tuple[int, int]] = []
    for kill_after in (3, 17, 40):
        left = [i for i in ids if i not in {sample_id for sample_id, _ in shown}]
        process = await start(tmp_path, "killed", left)
        assert process.stdout is not None
        for _ in range(kill_after):
            sample_id, decision_id = (await process.stdout.readline()).split()
            shown.append((int(sample_id), int(decision_id)))
        process.send_signal(signal.SIGKILL)
        shown += await said(process)
        await process.wait()
    async with open_workspace(tmp_path) as ws:
        for sample_id, decision_id in shown:
            sample = await samples.by_id(ws.db, sample_id)
            assert sample is not None
            assert sample.state == "approved"
            assert decision_id in {d.id for d in await decisions.of_sample(ws.db, sample_id)}
        rows = await ws.db.fetch_all(
            "SELECT sample_id, state FROM decisions JOIN samples ON samples.id = sample_id"
        )
        assert {row[1] for row in rows} == {"approved"}, "a decision in the log that its sample does not show"
        # A kill may fall between the commit and the word: then one more is decided than was said, and the
        # next process decided about it again.
        assert len(shown) <= len(rows) <= len(shown) + 3
        assert len(await deciding.undo(ws, 1000, reviewer="killed")) == len(rows)
        assert await ws.db.fetch_value("SELECT count(*) FROM samples WHERE state != 'pending'") == 0


async def test_two_processes_that_decide_at_once_lose_and_double_nothing(tmp_path: Path) -> None:
    async with open_workspace(tmp_path) as ws:
        ids = await put_samples(ws, 120)
        first, second = await asyncio.gather(
            start(tmp_path, "ann", ids[:80]), start(tmp_path, "bob", ids[40:])
        )
        # Ours decides as well, in between.
        for sample_id in ids[::10]:
            await deciding.flag(ws, sample_id, reviewer="cas")
        said_by = await asyncio.gather(said(first), said(second))
        assert await first.wait() == await second.wait() == 0
        counted = Counter({"ann": len(said_by[0]), "bob": len(said_by[1]), "cas": len(ids[::10])})
        rows = await ws.db.fetch_all("SELECT reviewer, count(*) FROM decisions GROUP BY reviewer")
        assert {row[0]: row[1] for row in rows} == counted == {"ann": 80, "bob": 80, "cas": 12}
        for sample_id in ids:
            sample = await samples.by_id(ws.db, sample_id)
            assert sample is not None
            assert sample.state == (await deciding.rebuilt(ws, sample_id)).state
