"""Exports samples and dataset versions as JSONL in the formats that trainers and the origin read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

from backend.datasets.catalog import find
from backend.datasets.errors import DatasetError
from backend.datasets.formats import read_rows
from backend.datasets.rejections import rejections
from backend.datasets.rows import (
    BadRow,
    JsonObject,
    Row,
    chat_record,
    origin_record,
    prompt_completion_record,
)
from backend.datasets.sample_rows import row_of
from backend.datasets.splits import SPLITS
from backend.datasets.writing import jsonl_file
from backend.settings import Workspace
from backend.store import samples
from backend.store.samples import Filter

EVERYTHING = Filter()
PAGE = 250
Format = Literal["origin", "messages", "trl", "trl_plain"]
FORMATS: tuple[Format, ...] = get_args(Format)


def _page(rows: Iterator[Row | BadRow]) -> list[Row | BadRow]:
    return list(islice(rows, PAGE))


def _trl_plain(row: Row) -> JsonObject:
    return prompt_completion_record(row, chat=False)


_RECORDS: dict[Format, Callable[[Row], JsonObject]] = {
    "origin": origin_record,
    "messages": chat_record,
    "trl": prompt_completion_record,
    "trl_plain": _trl_plain,
}


async def export_samples(
    ws: Workspace, path: Path, filter: Filter = EVERYTHING, *, format: Format = "origin"
) -> int:
    """Write the filter's samples to `path`, oldest first, and return how many.

    In the origin's format rejected and gated samples carry `rejection_reason` and `rejection_details`. The
    file is written beside and renamed; raises OSError, and then `path` is as it was.
    """
    ids = await samples.ids(ws.db, filter, newest_first=False)
    async with jsonl_file(path) as file:
        for start in range(0, len(ids), PAGE):
            page = await samples.by_ids(ws.db, ids[start : start + PAGE])
            refused = [sample for sample in page if sample.state in ("rejected", "gated")]
            why = await rejections(ws, refused) if refused else {}
            rows = (row_of(sample, why.get(sample.id)) for sample in page)
            await file.write(map(_RECORDS[format], rows))
    return file.count


async def export_dataset(
    ws: Workspace, ref: str, folder: Path, *, format: Format = "origin"
) -> dict[str, int]:
    """Write the splits of the version `NAME[@VERSION]` into `folder` and return each one's rows.

    Raises DatasetError for an unknown version or a line of it that cannot be read, OSError.
    """
    version = await find(ws, ref)
    counts: dict[str, int] = {}
    for split in SPLITS:
        rows = read_rows(Path(version.path) / f"{split}.jsonl")
        async with jsonl_file(folder / f"{split}.jsonl") as file:
            while page := await asyncio.to_thread(_page, rows):
                bad = next((row for row in page if isinstance(row, BadRow)), None)
                if bad is not None:
                    raise DatasetError(
                        f"{version.path}/{split}.jsonl, line {bad.line}: {bad.reason}; build it again"
                    )
                await file.write(_RECORDS[format](row) for row in page if isinstance(row, Row))
        counts[split] = file.count
    return counts
