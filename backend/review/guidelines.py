"""The guidelines that people decide by: one Markdown file, known by the hash of its text.

A workspace's `config/review_guidelines.md` takes the place of the packaged one. Every decision of a person
carries the version that was in force, whose text is kept, so that decisions made by other words can be told apart.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

from backend.review.log import ReviewError
from backend.settings import Workspace
from backend.store import Queries, Transaction
from backend.store.clock import now

NAME = "review_guidelines.md"


@dataclass(frozen=True, slots=True)
class Guidelines:
    """`hash` is the first 12 hexadecimal digits of the text's SHA-256; `path` where the text is edited."""

    text: str
    hash: str
    path: Path


def current(ws: Workspace) -> Guidelines:
    """The guidelines in force. Raises ReviewError for a file that cannot be read as UTF-8."""
    own = ws.config / NAME
    path = own if own.is_file() else Path(str(resources.files("config") / NAME))
    try:
        return _read(path, path.stat().st_mtime_ns)
    except (OSError, UnicodeDecodeError) as error:
        raise ReviewError(f"{path}: cannot be read ({error}); put it right, or take it away") from error


@lru_cache(maxsize=4)
def _read(path: Path, changed_ns: int) -> Guidelines:
    text = path.read_text("utf-8")
    return Guidelines(text, hashlib.sha256(text.encode()).hexdigest()[:12], path)


async def keep(transaction: Transaction, guidelines: Guidelines) -> str:
    """Keep the text of this version, where it is not kept yet; its hash."""
    await transaction.execute(
        "INSERT OR IGNORE INTO guidelines (hash, text, first_used_at) VALUES (?, ?, ?)",
        (guidelines.hash, guidelines.text, now()),
    )
    return guidelines.hash


async def kept(queries: Queries, hash: str) -> str:
    """The text of a version that decisions were made by. Raises ReviewError for one that is not kept."""
    text = await queries.fetch_value("SELECT text FROM guidelines WHERE hash = ?", (hash,))
    if text is None:
        raise ReviewError(f"no guidelines {hash}; hafs-tui samples show names the version of each decision")
    return str(text)
