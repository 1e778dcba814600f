"""The rows of a dataset as dataclasses, and the formats in which they are written.

A `Row` is a lesson: an instruction (with an `input` where the format has one) and the answer to learn.
A `PreferenceRow` is a prompt with a better and a worse answer. Unknown keys of a file are kept in `extra`,
so what was read can be written without loss.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend.contract.rows import user_text

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """An earlier message of a conversation. `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why the origin turned a row away: its two columns, as they stand in `rejected.jsonl`."""

    reason: str
    details: Any = None


@dataclass(frozen=True, slots=True)
class Row:
    """One lesson. `history` are the turns before the instruction (a system message among them),
    `quality_score` is the origin's 0 to 1, `timestamp` ISO 8601 as it was written, `extra` what else the row
    and its metadata held."""

    instruction: str
    output: str
    input: str = ""
    history: tuple[Turn, ...] = ()
    sample_id: str | None = None
    domain: str | None = None
    family: str | None = None
    source: str | None = None
    quality_score: float | None = None
    timestamp: str | None = None
    rejection: Rejection | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prompt(self) -> str:
        """What the model is asked: the instruction, then the input after an empty line."""
        return prompt_text(self.instruction, self.input)


@dataclass(frozen=True, slots=True)
class PreferenceRow:
    """A prompt with the answer that was preferred and the one that was not."""

    prompt: str
    chosen: str
    rejected: str
    source: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A line that could not be read: its number from 1, why, and its bytes for a quarantine file."""

    line: int
    reason: str
    raw: bytes = b""


def prompt_text(instruction: str, input_text: str = "") -> str:
    """The user's turn for a lesson: the contract's, so it is the same in training, evaluation and serving."""
    return user_text(instruction, input_text)


METADATA_FIELDS = ("sample_id", "domain", "source", "quality_score", "timestamp", "family")


def origin_record(row: Row) -> JsonObject:
    """The origin's row: `instruction`, `output`, `input` (left out when empty), `_metadata`; a rejected row
    has `rejection_reason` and `rejection_details` as well. `extra` goes into `_metadata`. A row with a
    history, which these columns cannot say, has `messages` beside them, and that is what is trained on."""
    record: JsonObject = {"instruction": row.instruction, "output": row.output}
    if row.input:
        record["input"] = row.input
    if row.rejection:
        record["rejection_reason"] = row.rejection.reason
        record["rejection_details"] = row.rejection.details
    if row.history:
        record["messages"] = [*_prompt_messages(row), _message("assistant", row.output)]
    record["_metadata"] = _metadata(row)
    return record


def chat_record(row: Row) -> JsonObject:
    """A chat row: `messages` (history, the prompt, the answer) and `_metadata`."""
    return {
        "messages": [*_prompt_messages(row), _message("assistant", row.output)],
        "_metadata": _metadata(row),
    }


def prompt_completion_record(row: Row, *, chat: bool = True) -> JsonObject:
    """TRL's prompt/completion row, for a loss on the completion only: two lists of messages, which TRL puts
    through the model's chat template, or with `chat=False` two plain strings (the history is left out)."""
    if not chat:
        return {"prompt": row.prompt, "completion": row.output}
    return {"prompt": _prompt_messages(row), "completion": [_message("assistant", row.output)]}


def preference_record(row: PreferenceRow) -> JsonObject:
    """`{prompt, chosen, rejected}` with `source` where it is known, and the keys of `extra` beside them."""
    record: JsonObject = {**row.extra, "prompt": row.prompt, "chosen": row.chosen, "rejected": row.rejected}
    if row.source is not None:
        record["source"] = row.source
    return record


def _prompt_messages(row: Row) -> list[JsonObject]:
    earlier = [_message(turn.role, turn.content) for turn in row.history]
    return [*earlier, _message("user", row.prompt)]


def _message(role: str, content: str) -> JsonObject:
    return {"role": role, "content": content}


def _metadata(row: Row) -> JsonObject:
    known = {name: getattr(row, name) for name in METADATA_FIELDS}
    return {**row.extra, **{name: value for name, value in known.items() if value is not None}}


def dump_line(record: Mapping[str, Any]) -> bytes:
    """One line of JSONL with its newline, UTF-8, readable characters. Lone surrogates, which UTF-8 cannot
    hold, are written as escapes. Raises ValueError for NaN or infinity, which JSON cannot hold."""
    text = json.dumps(record, ensure_ascii=False, allow_nan=False)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(record, allow_nan=False).encode() + b"\n"


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> int:
    """Write `records` to `path` and return how many. The file is written beside and renamed into place when
    it is on disk, so a reader sees the old file or the whole new one. Raises OSError (a full disk leaves the
    old file)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    count = 0
    try:
        with beside.open("wb") as stream:
            for record in records:
                stream.write(dump_line(record))
                count += 1
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return count


def content_hash(rows: Iterable[Row]) -> str:
    """The content of a dataset version as 64 hex digits: SHA-256 over what its rows teach (instruction,
    input, output, history), in no particular order; metadata and dates do not change it."""
    digests = sorted(_row_digest(row) for row in rows)
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _row_digest(row: Row) -> bytes:
    taught = [row.instruction, row.input, row.output, [[turn.role, turn.content] for turn in row.history]]
    return hashlib.sha256(json.dumps(taught, separators=(",", ":")).encode()).digest()
