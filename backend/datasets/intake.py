"""Takes in files of rows in every known format: lessons become samples, preferences become pairs.

A file is read as a stream and stored in batches, each one transaction, so a million rows need no memory, and
an import that was cut is simply started again: what is here already (by its id, or by its content where it
has none) is counted as known. A line that cannot be used costs nothing but itself: it goes into a quarantine
file with its number and reason.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from pathlib import Path

from backend.datasets.errors import DatasetError
from backend.datasets.formats import RowError, format_of, parse_preference, parse_row, read_records
from backend.datasets.rows import BadRow, PreferenceRow, Row
from backend.datasets.sample_rows import extra_of
from backend.datasets.splits import family_of
from backend.datasets.writing import JsonlFile, jsonl_file
from backend.settings import Workspace
from backend.similarity.exact import exact_hash, sample_text
from backend.store import Transaction, bulk
from backend.store.bulk import NewPair, NewSample
from backend.store.clock import now
from backend.store.samples import GateRow

BATCH = 1000
SHOWN = 100


@dataclass(frozen=True, slots=True)
class Problem:
    """A line that was not imported, counted from 1, and why."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of a file's rows: `read` = `inserted` + `known` + `bad`, of which `pairs` were inserted as
    pairs. `problems` are the first hundred bad lines; all of them are in `quarantine`."""

    path: Path
    read: int = 0
    inserted: int = 0
    known: int = 0
    pairs: int = 0
    bad: int = 0
    problems: tuple[Problem, ...] = ()
    quarantine: Path | None = None

    def __add__(self, other: ImportReport) -> ImportReport:
        return ImportReport(
            self.path,
            self.read + other.read,
            self.inserted + other.inserted,
            self.known + other.known,
            self.pairs + other.pairs,
            self.bad + other.bad,
            (*self.problems, *other.problems)[:SHOWN],
            self.quarantine or other.quarantine,
        )


OnProgress = Callable[[ImportReport], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How rows become samples: what stands for a domain or source that a row does not name, and the policy
    that approves them (None: they wait for review). `batch` is the name of the pairs among them;
    `pairs_only` refuses lessons."""

    domain: str = "unknown"
    source: str | None = None
    approver: str | None = None
    batch: str = "imported"
    pairs_only: bool = False


@dataclass(slots=True)
class _Batch:
    """Some lines of a file, converted. A line is in exactly one of the three lists."""

    samples: list[tuple[int, bytes, NewSample]] = field(default_factory=list)
    pairs: list[NewPair] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.samples) + len(self.pairs) + len(self.bad)


async def import_rows(
    ws: Workspace, path: Path, plan: Plan, on_progress: OnProgress | None = None
) -> tuple[ImportReport, list[int]]:
    """Take in one JSONL file; the report, and the ids of its samples (new and known) in the file's order.

    Raises DatasetError where the file cannot be read; the batches before that stay.
    """
    if not await asyncio.to_thread(path.is_file):
        raise DatasetError(f"{path}: no such file; give a JSONL file of rows")
    quarantine = ws.training / "quarantine" / f"{path.stem}_{datetime.now():%Y%m%d_%H%M%S}.jsonl"
    report = ImportReport(path)
    ids: list[int] = []
    records = read_records(path)
    try:
        async with jsonl_file(quarantine) as bad_rows:
            while len(batch := await asyncio.to_thread(_next_batch, records, path, plan)):
                stored, batch_ids = await _store(ws, path, batch, plan, bad_rows)
                report += stored
                ids += batch_ids
                if on_progress:
                    on_progress(report)
    except OSError as error:
        remedy = "what was imported stays; run the same import again to go on"
        raise DatasetError(f"{path}: {error.strerror or error}; {remedy}") from error
    if not report.bad:
        quarantine.unlink()
    return replace(report, quarantine=quarantine if report.bad else None), ids


async def _store(
    ws: Workspace, path: Path, batch: _Batch, plan: Plan, bad_rows: JsonlFile
) -> tuple[ImportReport, list[int]]:
    """One batch in one transaction; then its bad rows into the quarantine."""
    bad = list(batch.bad)
    async with ws.db.transaction() as transaction:
        ids, inserted = await _store_samples(transaction, path, batch, bad)
        pairs = await bulk.insert_pairs(transaction, batch.pairs, batch=plan.batch) if batch.pairs else 0
    bad.sort(key=lambda row: row.line)
    await bad_rows.write(
        {"line": row.line, "reason": row.reason, "raw": row.raw.decode("utf-8", "surrogateescape")}
        for row in bad
    )
    problems = tuple(Problem(row.line, row.reason) for row in bad[:SHOWN])
    known = len(batch) - inserted - pairs - len(bad)
    return ImportReport(path, len(batch), inserted + pairs, known, pairs, len(bad), problems), ids


async def _store_samples(
    transaction: Transaction, path: Path, batch: _Batch, bad: list[BadRow]
) -> tuple[list[int], int]:
    """Insert the samples that are not here; add those whose id belongs to another text to `bad`. The ids of
    the batch's samples in its order, and how many are new."""
    if not batch.samples:
        return [], 0
    known = await bulk.known_samples(transaction, [new.uid for _, _, new in batch.samples])
    fresh: dict[str, NewSample] = {}
    good: list[str] = []
    for line, raw, new in batch.samples:
        text = (new.instruction, new.input, new.output)
        if new.uid in known:
            same = text in known[new.uid].texts
        else:
            first = fresh.setdefault(new.uid, new)
            same = text == (first.instruction, first.input, first.output)
        if same:
            good.append(new.uid)
        else:
            bad.append(BadRow(line, f"sample_id {new.uid!r} is here already with another text", raw))
    numbers = await bulk.insert_samples(transaction, list(fresh.values()), author=f"import of {path.name}")
    ids = {uid: sample.id for uid, sample in known.items()} | dict(zip(fresh, numbers, strict=True))
    return [ids[uid] for uid in good], len(fresh)


def _next_batch(
    records: Iterator[tuple[int, bytes, dict[str, object]] | BadRow], path: Path, plan: Plan
) -> _Batch:
    batch = _Batch()
    for record in islice(records, BATCH):
        if isinstance(record, BadRow):
            batch.bad.append(record)
            continue
        line, raw, fields = record
        try:
            if format_of(fields) == "preference":
                plain = {key: _plain(value) for key, value in fields.items()}
                batch.pairs.append(new_pair(parse_preference(plain), plan.source or path.name))
            else:
                batch.samples.append((line, raw, _lesson(fields, path, plan)))
        except RowError as error:
            batch.bad.append(BadRow(line, str(error), raw))
    return batch


def _plain(value: object) -> object:
    """The text of a conversation of a single turn, as TRL's conversational rows have them; else the value."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict) and "role" in value[0]:
        return value[0].get("content")
    return value


def _lesson(fields: dict[str, object], path: Path, plan: Plan) -> NewSample:
    if plan.pairs_only:
        raise RowError("a lesson, no preference row: import it with hafs-tui samples import")
    return new_sample(parse_row(fields), path, plan)


def new_sample(row: Row, path: Path, plan: Plan) -> NewSample:
    """A row as a sample. Raises RowError for an empty instruction or answer (a rejected row may have one)."""
    if row.rejection is None:
        for name, text in (("instruction", row.instruction), ("output", row.output)):
            if not text.strip():
                raise RowError(f"{name!r} is empty")
    gate = None
    if row.rejection is not None:
        gate = GateRow("origin", False, row.quality_score, row.rejection.reason)
    return NewSample(
        uid=row.sample_id or _content_id(row),
        domain=row.domain or plan.domain,
        family=family_of(row),
        source=row.source or plan.source or path.name,
        instruction=row.instruction,
        input=row.input,
        output=row.output,
        exact_hash=exact_hash(sample_text(row.instruction, row.input, row.output)),
        score=row.quality_score,
        extra=json.dumps(extra_of(row)),
        created_at=_seconds(row.timestamp),
        gate=gate,
        approver=plan.approver,
    )


def new_pair(row: PreferenceRow, source: str) -> NewPair:
    """A preference row as a pair. Raises RowError where nothing can be learnt from it."""
    for name, text in (("prompt", row.prompt), ("chosen", row.chosen), ("rejected", row.rejected)):
        if not text.strip():
            raise RowError(f"{name!r} is empty")
    if row.chosen == row.rejected:
        raise RowError("'chosen' and 'rejected' are the same, so nothing can be learnt from the pair")
    return NewPair(
        pair_uid(row.prompt, row.chosen, row.rejected),
        row.prompt,
        row.chosen,
        row.rejected,
        None,
        "imported",
        row.source or source,
    )


def pair_uid(prompt: str, first: str, second: str) -> str:
    """The same for a pair of answers whichever of them is preferred: 32 hex digits."""
    return _digest([prompt, *sorted((first, second))])


def _content_id(row: Row) -> str:
    turns = [[turn.role, turn.content] for turn in row.history]
    return _digest([row.instruction, row.input, row.output, turns])


def _digest(parts: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()[:32]


def _seconds(timestamp: str | None) -> float:
    """Unix seconds of an ISO 8601 time (naive: local, as the origin writes it); now for anything else."""
    try:
        return datetime.fromisoformat(timestamp or "").timestamp()
    except (ValueError, OverflowError, OSError):
        return now()
