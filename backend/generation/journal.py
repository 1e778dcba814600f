"""What a running campaign leaves in files: `samples.jsonl`, growing as samples are accepted, and its log.

Both are exports. The database is the truth, and a run that starts makes `samples.jsonl` anew from it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from backend.datasets import exporting
from backend.datasets.rows import dump_line, origin_record
from backend.datasets.sample_rows import row_of
from backend.settings import Workspace
from backend.store.campaigns import Campaign
from backend.store.samples import Filter, Sample


class Journal:
    """The open files of one running campaign."""

    def __init__(self, samples_path: Path, logger: logging.Logger) -> None:
        self._path = samples_path
        self._logger = logger

    def accepted(self, sample: Sample) -> None:
        """Append a sample. The file may be made anew meanwhile, so it is opened for each; that and a line into
        the page cache take 30 microseconds: no thread is worth its cost."""
        with self._path.open("ab", buffering=0) as file:
            file.write(dump_line(origin_record(row_of(sample))))

    def info(self, message: str) -> None:
        self._logger.info(_one_line(message))

    def warning(self, message: str) -> None:
        self._logger.warning(_one_line(message))


@asynccontextmanager
async def open_journal(ws: Workspace, campaign: Campaign) -> AsyncIterator[Journal]:
    """The campaign's journal for a block, `samples.jsonl` made whole first."""
    path = ws.campaign_folder(campaign.name) / "samples.jsonl"
    await export_samples(ws, campaign.name, path)
    ws.logs.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(ws.logs / f"campaign_{campaign.name}.log", encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s [%(levelname)s] %(name)s: %(message)s"))
    logger = logging.Logger(f"campaign.{campaign.name}", logging.INFO)
    logger.addHandler(handler)
    try:
        yield Journal(path, logger)
    finally:
        handler.close()


async def export_samples(ws: Workspace, campaign: str, path: Path) -> int:
    """Write every accepted sample that no reviewer rejected, oldest first; how many there were."""
    accepted = Filter(campaign=campaign, states=("pending", "approved", "flagged"))
    return await exporting.export_samples(ws, path, accepted)


def _one_line(message: str) -> str:
    # A provider's words may hold escape codes or line ends; whoever tails the log must see neither.
    return "".join(c if c.isprintable() else " " for c in message)
