"""The data of a run: found, checked on this side before any host is asked, and given a name of its own there."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.contract.rows import RowError, preference_messages, training_messages
from backend.settings import Workspace
from backend.store import datasets, pairs

_SHOWN = 10


class TrainingRefused(Exception):
    """A run that cannot be started as asked; the message says why and what helps."""


@dataclass(frozen=True, slots=True)
class RunData:
    """A folder with train.jsonl and perhaps val.jsonl (or one file) here. `target` is its name on a host,
    which holds its content's hash: two datasets never meet there. `dataset_id` where it is a version."""

    name: str
    path: Path
    target: str
    rows: int
    dataset_id: int | None = None


async def find_dataset(ws: Workspace, dataset: str) -> RunData:
    """The dataset version NAME[@version], else the folder or file at that path.

    Does not read it: `check` does. Raises TrainingRefused that names the datasets there are.
    """
    name, _, version = dataset.partition("@")
    number = int(version.removeprefix("v")) if version.removeprefix("v").isdigit() else None
    found = await datasets.find(ws.db, name, number) if number or not version else None
    if found is not None:
        if found.train == 0:
            raise TrainingRefused(
                f"dataset {found.name}@{found.version} has no rows to train on; build it from more approved samples"
            )
        target = f"datasets/{found.name}-v{found.version}-{found.content_hash[:12]}"
        return RunData(found.name, Path(found.path), target, found.train, found.id)
    return await asyncio.to_thread(_at_path, dataset, await datasets.every(ws.db))


def _at_path(dataset: str, known: list[datasets.DatasetVersion]) -> RunData:
    path = Path(dataset).expanduser().absolute()
    if not path.exists():
        names = ", ".join(f"{one.name}@{one.version}" for one in known) or "none yet"
        raise TrainingRefused(f"{dataset} is neither a dataset nor a file here; datasets: {names}")
    digest = hashlib.sha256()
    for file in sorted(path.glob("*.jsonl")) if path.is_dir() else [path]:
        digest.update(f"{file.name}\n".encode() + file.read_bytes())
    return RunData(path.stem, path, f"datasets/{path.stem}-{digest.hexdigest()[:12]}", 0)


async def decided_pairs(ws: Workspace, batch: str | None = None) -> RunData:
    """The pairs that are decided, as a file in the workspace. Raises TrainingRefused where there are none."""
    decided = await pairs.every(ws.db, "decided", batch)
    if not decided:
        raise TrainingRefused("no pair is decided yet; decide some in Preferences, or give a file of pairs")
    lines = [
        json.dumps(
            {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected, "source": pair.source},
            ensure_ascii=False,
        )
        for pair in decided
    ]
    text = "\n".join(lines) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    path = ws.training / "preferences" / f"decided-{digest}" / "train.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return RunData("preferences", path.parent, f"datasets/preferences-{digest}", len(decided))


def check(data: RunData, kind: str) -> int:
    """The number of rows to train on, each readable by the worker. Slow for large files: use a thread.

    Raises TrainingRefused with the first broken lines, or when there is nothing to train on.
    """
    accept: Callable[[Mapping[str, Any]], object] = (
        preference_messages if kind == "dpo" else training_messages
    )
    train = data.path / "train.jsonl" if data.path.is_dir() else data.path
    if not train.is_file():
        raise TrainingRefused(f"{data.path} has no train.jsonl")
    rows, problems = 0, []
    with train.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            rows += 1
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise RowError(f"expected an object, found {type(row).__name__}")
                accept(row)
            except ValueError as error:
                problems.append(f"{train}:{number}: {error}")
    if problems:
        more = f"\n... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise TrainingRefused(
            "\n".join(problems[:_SHOWN]) + more + "\nCorrect these lines, or bring the file in with "
            "hafs-tui dataset import, which reads more formats and sets broken rows aside"
        )
    if rows == 0:
        raise TrainingRefused(f"{train} is empty: there is nothing to train on")
    return rows
