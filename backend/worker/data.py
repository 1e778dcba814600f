"""Reads JSONL files of rows and refuses what cannot be used, naming the file and the line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from backend.contract.rows import RowError
from backend.worker.run import Refused

T = TypeVar("T")

_SHOWN = 20


def train_file(path: str) -> Path:
    """A dataset is a folder with `train.jsonl` and perhaps `val.jsonl`, or one JSONL file.

    Raises:
        Refused: the path is not there, or a folder has no `train.jsonl`.
    """
    place = Path(path).expanduser()
    found = place / "train.jsonl" if place.is_dir() else place
    if not found.exists():
        raise Refused(
            "missing_data", f"{found} is not there", "copy the dataset to the host or correct the path"
        )
    return found


def eval_file(path: str, named: str) -> Path | None:
    """The file for the evaluation loss: the one that is named, else the dataset folder's `val.jsonl`, else none."""
    if named:
        return train_file(named)
    found = Path(path).expanduser() / "val.jsonl"
    return found if found.exists() else None


def read_rows(path: Path, accept: Callable[[dict[str, Any]], T]) -> list[T]:
    """Every row of a JSONL file through `accept`, in order; empty lines are passed over.

    Raises:
        Refused: the file is not there or has no rows, or rows are broken: all of them are named by line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Refused(
            "missing_data", f"{path} is not there", "copy it to the host or correct the path"
        ) from None
    except UnicodeDecodeError as error:
        raise Refused("broken_data", f"{path}: not UTF-8 at byte {error.start}", "save it as UTF-8") from None
    rows: list[T] = []
    broken: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(accept(_object(line)))
        except json.JSONDecodeError as error:
            broken.append(f"line {number}: not JSON at column {error.colno}: {error.msg}")
        except RowError as error:
            broken.append(f"line {number}: {error}")
    if broken:
        more = f"\nand {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
        raise Refused(
            "broken_data",
            f"{path}: {len(broken)} of {len(broken) + len(rows)} rows cannot be used:\n"
            + "\n".join(broken[:_SHOWN])
            + more,
            "correct or remove these lines",
        )
    if not rows:
        raise Refused("empty_data", f"{path} has no rows", "build the dataset with at least one row")
    return rows


def _object(line: str) -> dict[str, Any]:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise RowError(f"expected an object, found {type(row).__name__}")
    return row


def sha256(path: Path) -> str:
    """The file's content hash, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
