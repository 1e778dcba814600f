"""Exports pairs as TRL's preference rows: `{prompt, chosen, rejected, source}`."""

from __future__ import annotations

from pathlib import Path

from backend.datasets.rows import JsonObject, PreferenceRow, preference_record
from backend.datasets.writing import jsonl_file
from backend.preferences.errors import PreferenceError
from backend.settings import Workspace
from backend.store import pairs
from backend.store.connection import typed
from backend.store.pairs import Pair

_PAGE = 250


async def export(
    ws: Workspace,
    path: Path,
    *,
    batch: str | None = None,
    conversational: bool = False,
    pending: bool = False,
) -> int:
    """Write the decided pairs (of one batch, or all) to `path`, oldest first, and return how many.

    `pending` adds those that only a scorer or an import has decided about; pairs that were left to people
    never are, until they decide. `conversational` writes each text as a list of one message. Ties and bad
    pairs are left out. Raises PreferenceError where there is nothing to write; `path` then stays as it was.
    """
    condition = (
        "(? IS NULL OR batch = ?) AND (state = 'decided' OR (? AND state = 'pending' AND scorer != 'human'))"
    )
    wanted = (batch, batch, int(pending))
    if not await ws.db.fetch_value(f"SELECT count(*) FROM pairs WHERE {condition}", wanted):  # noqa: S608
        raise PreferenceError(await _remedy(ws, batch, pending))
    after = 0
    async with jsonl_file(path) as file:
        while True:
            rows = await ws.db.fetch_all(
                f"SELECT * FROM pairs WHERE {condition} AND id > ? ORDER BY id LIMIT ?",  # noqa: S608
                (*wanted, after, _PAGE),
            )
            if not rows:
                return file.count
            page = [typed(Pair, row) for row in rows]
            after = page[-1].id
            await file.write(_record(pair, conversational) for pair in page)


def _record(pair: Pair, conversational: bool) -> JsonObject:
    record = preference_record(PreferenceRow(pair.prompt, pair.chosen, pair.rejected, pair.source))
    if conversational:
        record["prompt"] = [{"role": "user", "content": pair.prompt}]
        record["chosen"] = [{"role": "assistant", "content": pair.chosen}]
        record["rejected"] = [{"role": "assistant", "content": pair.rejected}]
    return record


async def _remedy(ws: Workspace, batch: str | None, pending: bool) -> str:
    of_batch = f" of batch {batch}" if batch else ""
    waiting = len(await pairs.ids(ws.db, "pending", batch))
    if waiting and not pending:
        return f"no decided pair{of_batch}: {waiting} wait for a decision; decide them, or export pending ones too"
    if waiting:
        return f"no pair{of_batch} to export: {waiting} were left to people; decide them first"
    return f"no pair{of_batch} to export; hafs-tui preferences generate makes some"
