"""Readers of every known row format, one JSON object a line, streamed.

What cannot be read becomes a `BadRow` with its line and reason and is handed on beside the good rows: one
bad line never costs the rest of a file, and its bytes are there for a quarantine. Known formats:

- the origin's `instruction`, `output`, `input`, `_metadata` (or the legacy key `metadata`); with
  `rejection_reason` and `rejection_details` it is a rejected row;
- chat rows: `messages` with roles and contents; columns beside them that say the same are used for the input;
- Alpaca rows: `instruction`, `input`, `output` and their rendering `text`, or `text` alone;
- benchmark rows: `instruction`, `input`, `output`, `category`;
- preference rows: `prompt`, `chosen`, `rejected`, sometimes `source`, read by `read_preferences`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from backend.datasets.rows import METADATA_FIELDS, BadRow, JsonObject, PreferenceRow, Rejection, Row, Turn

RowFormat = Literal["instruction", "rejected", "messages", "text", "benchmark", "preference"]

_T = TypeVar("_T")
_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_ROLES = {"system", "user", "assistant"}
_ALPACA = re.compile(
    r"### Instruction:\s*\n(?P<instruction>.*?)"
    r"(?:\n\s*### Input:\s*\n(?P<input>.*?))?"
    r"\n\s*### Response:[ \t]*\n?(?P<output>.*)\Z",
    re.DOTALL,
)


class RowError(ValueError):
    """A record that is no row of the wanted kind; the message says which key is wrong and what was expected."""


def read_rows(path: Path) -> Iterator[Row | BadRow]:
    """The lessons of a JSONL file in order, bad lines among them as `BadRow`. A preference row is a bad row
    here. Raises OSError where the file cannot be read."""
    return _read(path, parse_row)


def read_preferences(path: Path) -> Iterator[PreferenceRow | BadRow]:
    """The preference rows of a JSONL file in order, bad lines among them as `BadRow`. Raises OSError."""
    return _read(path, parse_preference)


def partition(rows: Iterator[_T | BadRow]) -> tuple[list[_T], list[BadRow]]:
    """The good rows and the bad ones of a reader, each in order. Holds the whole file in memory."""
    good: list[_T] = []
    bad: list[BadRow] = []
    for row in rows:
        if isinstance(row, BadRow):
            bad.append(row)
        else:
            good.append(row)
    return good, bad


def read_records(path: Path) -> Iterator[tuple[int, bytes, JsonObject] | BadRow]:
    """The objects of a JSONL file with their line numbers and bytes; empty lines are passed over. Tolerates
    a UTF-8 byte order mark and CRLF; NaN and infinities, which are no JSON, are read as null."""
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            if number == 1:
                if raw.startswith(_UTF16_BOMS):
                    remedy = "the file is UTF-16, as PowerShell's `>` writes it: save it as UTF-8"
                    yield BadRow(number, remedy, raw)
                    return
                raw = raw.removeprefix(_BOM)
            if not raw.strip():
                continue
            try:
                yield number, raw, _parse_object(raw)
            except RowError as error:
                yield BadRow(number, str(error), raw)


def _read(path: Path, parse: Callable[[Mapping[str, Any]], _T]) -> Iterator[_T | BadRow]:
    for record in read_records(path):
        if isinstance(record, BadRow):
            yield record
            continue
        number, raw, fields = record
        try:
            yield parse(fields)
        except RowError as error:
            yield BadRow(number, str(error), raw)


def _parse_object(raw: bytes) -> JsonObject:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise RowError(
            f"not UTF-8: byte {error.start + 1} of the line is 0x{raw[error.start]:02X}"
        ) from error
    try:
        record = json.loads(text, parse_constant=lambda _: None, parse_float=_finite)
    except json.JSONDecodeError as error:
        cut = "" if raw.endswith(b"\n") else " (the last line has no end: the file may have been cut)"
        raise RowError(f"not JSON: {error.msg} at column {error.colno}{cut}") from error
    except RecursionError as error:
        raise RowError("not a row: nested too deeply") from error
    except ValueError as error:  # an integer of thousands of digits
        raise RowError(f"not a row: {error}") from error
    if not isinstance(record, dict):
        raise RowError(f"not a JSON object but {_kind(record)}")
    if "\\u" in text:
        _refuse_lone_surrogates(record)
    return record


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _refuse_lone_surrogates(record: JsonObject) -> None:
    """Half a character cannot be stored, written or tokenised."""
    for key, value in record.items():
        try:
            json.dumps({key: value}, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = ord(error.object[error.start])
            raise RowError(f"{key!r} holds half a character (lone surrogate U+{half:04X})") from error


def format_of(record: Mapping[str, Any]) -> RowFormat:
    """Which known format an object has, by its keys. Raises RowError where it has none of them."""
    if {"prompt", "chosen", "rejected"} <= record.keys():
        return "preference"
    if "messages" in record:
        return "messages"
    if {"instruction", "output"} <= record.keys():
        if "rejection_reason" in record:
            return "rejected"
        is_benchmark = "category" in record and "_metadata" not in record and "metadata" not in record
        return "benchmark" if is_benchmark else "instruction"
    if isinstance(record.get("text"), str) and "instruction" not in record:
        return "text"
    keys = ", ".join(sorted(map(str, record))[:8]) or "none"
    raise RowError(
        f"no known row format: its keys are {keys}; expected instruction and output, or messages, or prompt, "
        "chosen and rejected"
    )


def parse_row(record: Mapping[str, Any]) -> Row:
    """A lesson from one object of any format but preferences. Raises RowError."""
    kind = format_of(record)
    if kind == "preference":
        raise RowError("a preference row (prompt, chosen, rejected): import it as preferences")
    if kind == "messages":
        row, taken = _from_messages(record)
    elif kind == "text":
        row, taken = _from_text(record)
    else:
        row, taken = _from_columns(record)
    rejection = None
    if "rejection_reason" in record:
        reason = record["rejection_reason"]
        rejection = Rejection("" if reason is None else str(reason), record.get("rejection_details"))
    extra, known = _metadata(record, {*taken, "rejection_reason", "rejection_details"})
    return replace(row, rejection=rejection, extra=extra, **known)


def parse_preference(record: Mapping[str, Any]) -> PreferenceRow:
    """A preference row from one object. Raises RowError."""
    missing = [key for key in ("prompt", "chosen", "rejected") if key not in record]
    if missing:
        raise RowError(f"no preference row: {', '.join(missing)} missing; expected prompt, chosen, rejected")
    source = record.get("source")
    known = {"prompt", "chosen", "rejected"} | ({"source"} if isinstance(source, str) else set())
    return PreferenceRow(
        prompt=_text(record, "prompt"),
        chosen=_text(record, "chosen"),
        rejected=_text(record, "rejected"),
        source=source if isinstance(source, str) else None,
        extra={key: value for key, value in record.items() if key not in known},
    )


def _from_columns(record: Mapping[str, Any]) -> tuple[Row, set[str]]:
    row = Row(_text(record, "instruction"), _text(record, "output"), _text(record, "input", missing=""))
    return row, {"instruction", "input", "output"}


def _from_messages(record: Mapping[str, Any]) -> tuple[Row, set[str]]:
    turns = _turns(record["messages"], "messages")
    if not turns or turns[-1].role != "assistant":
        raise RowError("'messages' does not end with the assistant's answer")
    if len(turns) < 2 or turns[-2].role != "user":
        raise RowError("'messages' has no user's message before the last answer")
    row = Row(instruction=turns[-2].content, output=turns[-1].content, history=turns[:-2])
    if {"instruction", "output"} <= record.keys():
        columns, taken = _from_columns(record)
        if (columns.prompt, columns.output) == (row.instruction, row.output):
            return replace(columns, history=row.history), {*taken, "messages"}
    return row, {"messages"}


def _from_text(record: Mapping[str, Any]) -> tuple[Row, set[str]]:
    found = _ALPACA.search(record["text"])
    if not found:
        raise RowError("'text' is not in Alpaca's form (### Instruction: ... ### Response: ...)")
    parts = {name: (part or "").strip() for name, part in found.groupdict().items()}
    return Row(parts["instruction"], parts["output"], parts["input"]), {"text"}


def _turns(messages: Any, key: str) -> tuple[Turn, ...]:
    if not isinstance(messages, list):
        raise RowError(f"{key!r} is {_kind(messages)}, not a list")
    return tuple(_turn(message, f"{key}[{place}]") for place, message in enumerate(messages))


def _turn(message: Any, where: str) -> Turn:
    if not isinstance(message, dict):
        raise RowError(f"{where} is {_kind(message)}, not an object with role and content")
    role, content = message.get("role"), message.get("content")
    if role not in _ROLES:
        raise RowError(f"{where} has the role {role!r}; expected system, user or assistant")
    if isinstance(content, list):  # a list of parts, as the OpenAI format allows
        texts = [part.get("text") if isinstance(part, dict) else None for part in content]
        if all(isinstance(text, str) for text in texts):
            return Turn(role, "".join(str(text) for text in texts))
    if not isinstance(content, str):
        raise RowError(f"{where} has a content that is {_kind(content)}, not text")
    return Turn(role, content)


def _metadata(record: Mapping[str, Any], taken: set[str]) -> tuple[JsonObject, dict[str, Any]]:
    """What else a record holds: `(extra, known)`, `known` for the fields of `Row`, `extra` for the rest.

    A key may stand in `_metadata` (or the legacy `metadata`) or beside the text; where both have it and
    differ, the metadata's is used and the other is kept as `row_<key>`.
    """
    nested: JsonObject = {}
    beside: JsonObject = {}
    for key, value in record.items():
        if key in ("_metadata", "metadata") and isinstance(value, dict):
            nested.update(
                {name: part for name, part in value.items() if key == "_metadata" or name not in nested}
            )
        elif key in ("_metadata", "metadata") and value is None:
            continue
        elif key not in taken:
            beside[key] = value
    for key, value in beside.items():
        if key not in nested:
            nested[key] = value
        elif nested[key] != value:
            nested[f"row_{key}"] = value
    known = {name: _known(name, nested.pop(name)) for name in METADATA_FIELDS if name in nested}
    return nested, known


def _known(name: str, value: Any) -> str | float | None:
    if value is None:
        return None
    if name == "quality_score":
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RowError(f"'quality_score' is {_kind(value)}, not a number")
        return float(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowError(f"{name!r} is {_kind(value)}, not text")
    return str(value)


def _text(record: Mapping[str, Any], key: str, *, missing: str | None = None) -> str:
    value = record.get(key, missing)
    if value is None and missing is not None:
        return missing
    if not isinstance(value, str):
        raise RowError(f"{key!r} is {_kind(value)}, not text")
    return value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
