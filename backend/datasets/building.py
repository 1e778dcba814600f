"""Builds a dataset version: approved samples, split by family, written once and frozen.

A version is a folder `training/datasets/<name>_<YYYYMMDD_HHMMSS>/` in the origin's layout, and a row that
says which revision of which sample is in which split. Nothing of a version is ever changed; what is decided
later goes into the next one.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from backend.datasets.errors import DatasetError
from backend.datasets.formats import read_rows
from backend.datasets.rejections import rejections
from backend.datasets.rows import BadRow, Row, content_hash, origin_record, prompt_text
from backend.datasets.sample_rows import row_of
from backend.datasets.splits import SPLITS, Fractions, Member, SplitName, assign_splits
from backend.datasets.writing import jsonl_file
from backend.settings import Workspace
from backend.settings.load import write_text
from backend.similarity.exact import exact_hash
from backend.store import datasets, leases, samples
from backend.store.datasets import DatasetVersion
from backend.store.samples import Filter, Sample

EVERYTHING = Filter()
PAGE = 250
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}")


@dataclass(frozen=True, slots=True)
class _Placed:
    sample_id: int
    uid: str
    revision: int
    split: SplitName


async def build(
    ws: Workspace,
    name: str,
    filters: Filter | Sequence[Filter] = EVERYTHING,
    *,
    seed: int = 42,
    fractions: Fractions | None = None,
) -> DatasetVersion:
    """Freeze the samples that any of the filters shows as the next version of `name`.

    A filter without states means what is approved. Samples of one family, and samples that ask the same, stay
    in one split. What the same filters show as rejected or gated goes into `rejected.jsonl`.

    Raises DatasetError for a bad name, shares or an empty set, LeaseHeldError while another process builds
    `name`, OSError when the disk is full (nothing is left behind).
    """
    check_name(name)
    chosen = [filters] if isinstance(filters, Filter) else list(filters)
    kept = [one if one.states else replace(one, states=("approved",)) for one in chosen]
    ids = await _union(ws, kept)
    if not ids:
        raise DatasetError(f"dataset {name}: no sample passes {_describe(kept)}; {await _remedy(ws, chosen)}")
    shares = fractions or Fractions()
    splits = await split_samples(ws, ids, seed, shares)
    refused = await _union(ws, [replace(one, states=("rejected", "gated")) for one in chosen])
    origin = {"filters": [asdict(one) for one in kept], "fractions": {"val": shares.val, "test": shares.test}}
    return await freeze(ws, name, splits, refused, seed=seed, origin=origin)


async def split_samples(
    ws: Workspace, ids: Sequence[int], seed: int, shares: Fractions
) -> dict[SplitName, list[int]]:
    """The samples of each split: stratified by domain, no family and no prompt in two of them."""
    members = await _members(ws, ids)
    placed = await asyncio.to_thread(assign_splits, members.values(), seed, shares)
    splits: dict[SplitName, list[int]] = {split: [] for split in SPLITS}
    for sample_id in ids:
        splits[placed[members[sample_id].key]].append(sample_id)
    return splits


def check_name(name: str) -> None:
    """Raises DatasetError for a name that cannot be a folder's, or that hides a version's number."""
    if not _NAME.fullmatch(name):
        raise DatasetError(f"{name!r} cannot name a dataset: use letters, digits, '.', '_' and '-'")


async def freeze(
    ws: Workspace,
    name: str,
    splits: Mapping[SplitName, Sequence[int]],
    refused: Sequence[int] = (),
    *,
    seed: int,
    origin: dict[str, Any],
) -> DatasetVersion:
    """Write samples, by their ids, as the next version of `name` and record it; `origin` says where they
    come from. Raises as `build` does."""
    check_name(name)
    beside = ws.datasets / f".{name}.part"
    async with leases.hold(ws.db, f"dataset:{name}"):
        version = await datasets.next_version(ws.db, name)
        try:
            await asyncio.to_thread(shutil.rmtree, beside, ignore_errors=True)
            placed, content = await _write(
                ws, beside, splits, refused, name=name, version=version, seed=seed, origin=origin
            )
            folder = _free_folder(ws.datasets, name)
            beside.rename(folder)
        finally:
            await asyncio.to_thread(shutil.rmtree, beside, ignore_errors=True)
        async with ws.db.transaction() as transaction:
            dataset_id = await datasets.insert(
                transaction,
                name=name,
                version=version,
                path=str(folder),
                content_hash=content,
                seed=seed,
                filters=json.dumps(origin),
                counts={split: sum(one.split == split for one in placed) for split in SPLITS},
                members=[(one.sample_id, one.revision, one.split) for one in placed],
            )
            made = await datasets.by_id(transaction, dataset_id)
    assert made is not None  # noqa: S101 - inserted above
    return made


async def _write(
    ws: Workspace,
    folder: Path,
    splits: Mapping[SplitName, Sequence[int]],
    refused: Sequence[int],
    *,
    name: str,
    version: int,
    seed: int,
    origin: dict[str, Any],
) -> tuple[list[_Placed], str]:
    """Every file of a version into `folder`; what was placed where, and the content hash."""
    tally = _Tally()
    placed: list[_Placed] = []
    hashes: dict[str, str] = {}
    for split in SPLITS:
        async with jsonl_file(folder / f"{split}.jsonl") as file:
            for start in range(0, len(splits[split]), PAGE):
                page = await samples.by_ids(ws.db, splits[split][start : start + PAGE])
                rows = [row_of(sample) for sample in page]
                await file.write(map(origin_record, rows))
                tally.add(split, rows)
                placed += [_Placed(sample.id, sample.uid, sample.revision, split) for sample in page]
        hashes[f"{split}.jsonl"] = file.sha256
    hashes["rejected.jsonl"], summary = await _write_rejected(ws, folder, refused)
    content = await asyncio.to_thread(hash_of_folder, folder)
    metadata = {
        "name": name,
        "version": version,
        "created_at": datetime.now().isoformat(timespec="seconds"),
        "seed": seed,
        **origin,
        "content_hash": content,
        "files": hashes,
        "samples": {
            split: [[one.sample_id, one.uid, one.revision] for one in placed if one.split == split]
            for split in SPLITS
        },
    }
    for file_name, record in (
        ("stats.json", tally.stats()),
        ("rejection_summary.json", summary),
        ("metadata.json", metadata),
    ):
        await asyncio.to_thread(_write_record, folder / file_name, record)
    return placed, content


def _write_record(path: Path, record: Mapping[str, Any]) -> None:
    indent = None if path.name == "metadata.json" else 2  # a line for each of its ids would be unreadable
    write_text(path, json.dumps(record, ensure_ascii=False, indent=indent) + "\n")


async def _write_rejected(ws: Workspace, folder: Path, refused: Sequence[int]) -> tuple[str, dict[str, Any]]:
    reasons: Counter[str] = Counter()
    by_domain: defaultdict[str, Counter[str]] = defaultdict(Counter)
    async with jsonl_file(folder / "rejected.jsonl") as file:
        for start in range(0, len(refused), PAGE):
            page = await samples.by_ids(ws.db, refused[start : start + PAGE])
            why = await rejections(ws, page)
            rows = [row_of(sample, why[sample.id]) for sample in page]
            await file.write(map(origin_record, rows))
            for row in rows:
                reason = row.rejection.reason if row.rejection else ""
                reasons[reason] += 1
                by_domain[row.domain or ""][reason] += 1
    summary = {
        "total": file.count,
        "by_reason": dict(reasons.most_common()),
        "by_domain": {domain: dict(found.most_common()) for domain, found in sorted(by_domain.items())},
    }
    return file.sha256, summary


class _Tally:
    """Counts what a version holds, for stats.json."""

    def __init__(self) -> None:
        self._splits: Counter[str] = Counter()
        self._domains: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._sources: Counter[str] = Counter()
        self._families: set[str] = set()
        self._characters: Counter[str] = Counter()
        self._scores: list[float] = []

    def add(self, split: SplitName, rows: Sequence[Row]) -> None:
        for row in rows:
            self._splits[split] += 1
            self._domains[row.domain or ""][split] += 1
            self._sources[row.source or ""] += 1
            self._families.add(row.family or "")
            self._characters["instruction"] += len(row.instruction) + len(row.input)
            self._characters["output"] += len(row.output)
            if row.quality_score is not None:
                self._scores.append(row.quality_score)

    def stats(self) -> dict[str, Any]:
        scores = self._scores
        return {
            "total": self._splits.total(),
            "splits": {split: self._splits[split] for split in SPLITS},
            "domains": {domain: dict(found) for domain, found in sorted(self._domains.items())},
            "sources": dict(self._sources.most_common()),
            "families": len(self._families),
            "characters": dict(self._characters),
            "quality_score": {
                "rows": len(scores),
                "mean": sum(scores) / len(scores) if scores else None,
                "lowest": min(scores, default=None),
                "highest": max(scores, default=None),
            },
        }


def hash_of_folder(folder: Path) -> str:
    """The content hash of a version's three files as they lie on disk.

    Raises DatasetError for a line that cannot be read, OSError for a file that is not there.
    """

    def rows() -> Iterator[Row]:
        for split in SPLITS:
            for row in read_rows(folder / f"{split}.jsonl"):
                if isinstance(row, BadRow):
                    raise DatasetError(
                        f"{folder / split}.jsonl, line {row.line}: {row.reason}; build it again"
                    )
                yield row

    return content_hash(rows())


def _free_folder(parent: Path, name: str) -> Path:
    at = datetime.now()
    while (folder := parent / f"{name}_{at:%Y%m%d_%H%M%S}").exists():
        at += timedelta(seconds=1)
    return folder


async def _union(ws: Workspace, filters: Sequence[Filter]) -> list[int]:
    """The ids that any of the filters leaves, each once, oldest first."""
    found: set[int] = set()
    for one in filters:
        found.update(await samples.ids(ws.db, one))
    return sorted(found)


async def _members(ws: Workspace, ids: Sequence[int]) -> dict[int, Member]:
    """What the splits need to know of each sample: its group joins families that ask the same thing."""
    groups = _Groups()
    read: list[tuple[int, str, str, str]] = []
    for start in range(0, len(ids), PAGE):
        page = await samples.by_ids(ws.db, ids[start : start + PAGE])
        prompts = await asyncio.to_thread(_prompt_hashes, page)
        for sample, prompt in zip(page, prompts, strict=True):
            groups.join(f"family {sample.family}", f"prompt {prompt}")
            read.append((sample.id, sample.uid, sample.family, sample.domain))
    return {
        sample_id: Member(uid, groups.name(f"family {family}"), domain)
        for sample_id, uid, family, domain in read
    }


def _prompt_hashes(page: Sequence[Sample]) -> list[str]:
    return [exact_hash(prompt_text(sample.instruction, sample.input)) for sample in page]


class _Groups:
    """Disjoint sets of names (union-find); a set is named by the smallest of its names."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def name(self, member: str) -> str:
        root = self._parent.setdefault(member, member)
        while root != self._parent[root]:
            root = self._parent[root]
        while self._parent[member] != root:
            self._parent[member], member = root, self._parent[member]
        return root

    def join(self, first: str, second: str) -> None:
        low, high = sorted((self.name(first), self.name(second)))
        self._parent[high] = low


def _describe(filters: Sequence[Filter]) -> str:
    parts = []
    for one in filters:
        shown = {key: value for key, value in asdict(one).items() if value not in (None, ())}
        parts.append(", ".join(f"{key} {_shown(value)}" for key, value in shown.items()))
    return " or ".join(parts)


def _shown(value: Any) -> str:
    return "/".join(value) if isinstance(value, tuple) else str(value)


async def _remedy(ws: Workspace, filters: Sequence[Filter]) -> str:
    waiting = await _union(ws, [replace(one, states=("pending",)) for one in filters])
    if waiting:
        return f"{len(waiting)} wait for review: approve them (Review, or hafs-tui samples approve)"
    return "generate samples (hafs-tui campaign create) or import them (hafs-tui samples import)"
