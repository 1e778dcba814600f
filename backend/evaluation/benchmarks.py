"""Benchmark files: one item a line, read with every problem named; text answers are scored here.

The format: the origin's four columns (`instruction`, `input`, `output`, `category`) are a whole item; fields
of our own make it executable. A line that is no item is a `BadItem` with its line and reason, and the other
items stand; a file without any good item is an error.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any, Literal, cast, get_args

from backend.datasets.formats import read_records
from backend.datasets.rows import BadRow, JsonObject, prompt_text
from backend.execution.expectations import Expect, ExpectError, read_expect
from backend.execution.expectations import Outcome as Outcome
from backend.similarity.normalise import Normalise, normalise_text, same_answer

Mode = Literal["text", "routine", "patch", "question"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
MODES: tuple[Mode, ...] = get_args(Mode)

# Names of our own in the folder where an item is assembled are not to be had.
_FILE_NAME = re.compile(r"(?!(?:main|answer)\.asm$|out\.sfc$)[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_CODE_CATEGORIES = ("asm", "rom_hack")


class BenchmarkError(ValueError):
    """A benchmark file without any item; the message names the file and its first problem."""


class _ItemError(ValueError):
    pass


@dataclass(frozen=True, slots=True)
class BenchmarkItem:
    """One item. `references` are the right answers that the file gives (`output`, `reference`, `alternates`);
    `normalise` is how a text answer is compared with them; `wanted` is `expect` read, for what is executed;
    `extra` holds the fields that we do not know."""

    id: str
    instruction: str
    input: str
    output: str
    category: str
    family: str
    mode: Mode
    normalise: Normalise
    references: tuple[str, ...]
    line: int
    label: str | None = None
    setup: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    expect: Mapping[str, Any] = field(default_factory=dict)
    wanted: Expect | None = None
    canary: str | None = None
    near_miss: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prompt(self) -> str:
        """What the model is asked, built as in training."""
        return prompt_text(self.instruction, self.input)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A file's items in order, and the lines that are none."""

    name: str
    items: tuple[BenchmarkItem, ...]
    problems: tuple[BadRow, ...]

    @property
    def by_text_only(self) -> bool:
        """Whether nothing in it can be executed: the report says so."""
        return all(item.mode == "text" for item in self.items)


def benchmark_name(path: Path) -> str:
    """`asm` for `.../asm_benchmark.jsonl`."""
    return path.stem.removesuffix("_benchmark")


def read_benchmark(path: Path) -> Benchmark:
    """The benchmark in a JSONL file. Lines with a wrong field, an unknown mode or an id that came before are
    its `problems`. Raises OSError, and BenchmarkError where no line is an item."""
    items: list[BenchmarkItem] = []
    problems: list[BadRow] = []
    lines: dict[str, int] = {}
    for record in read_records(path):
        if isinstance(record, BadRow):
            problems.append(record)
            continue
        number, raw, fields = record
        try:
            item = parse_item(fields, number)
        except _ItemError as error:
            problems.append(BadRow(number, str(error), raw))
            continue
        if item.id in lines:
            problems.append(BadRow(number, f"the id {item.id!r} is on line {lines[item.id]} already", raw))
            continue
        lines[item.id] = number
        items.append(item)
    if not items:
        first = f"; line {problems[0].line}: {problems[0].reason}" if problems else ": the file is empty"
        raise BenchmarkError(f"{path} holds no benchmark item{first}")
    return Benchmark(benchmark_name(path), tuple(items), tuple(problems))


def parse_item(fields: JsonObject, line: int) -> BenchmarkItem:
    """One item from one object. Raises ValueError that names the key and what was expected."""
    known = dict(fields)
    instruction = _text(known, "instruction")
    if not normalise_text(instruction):
        raise _ItemError("'instruction' is empty")
    mode = _choice(known, "mode", MODES, "text")
    output = _text(known, "output", "")
    category = _text(known, "category", "")
    references = _distinct([output, *_texts(known, "reference"), *_texts(known, "alternates")])
    setup = _text(known, "setup", None)
    if mode != "text" and not setup:
        raise _ItemError(f"'setup' is missing: mode {mode!r} needs the source that is assembled")
    identity = _text(known, "id", None) or content_id(fields)
    default: Normalise = "asm" if category in _CODE_CATEGORIES else "text"
    return BenchmarkItem(
        id=identity,
        instruction=instruction,
        input=_text(known, "input", ""),
        output=output,
        category=category,
        family=_text(known, "family", None) or identity,
        mode=cast("Mode", mode),
        normalise=cast("Normalise", _choice(known, "normalise", get_args(Normalise), default)),
        references=references,
        line=line,
        label=_text(known, "label", None),
        setup=setup,
        files=_files(known),
        expect=_object(known, "expect"),
        wanted=_wanted(known, mode),
        canary=_text(known, "canary", None),
        near_miss=_texts(known, "near_miss"),
        broken=_texts(known, "broken"),
        extra={key: value for key, value in known.items() if key not in _FIELDS},
    )


_FIELDS = {definition.name for definition in dataclass_fields(BenchmarkItem)} | {"reference", "alternates"}
_FIELDS -= {"references", "line", "extra", "wanted"}


def content_id(fields: Mapping[str, Any]) -> str:
    """The id of an item that has none: 16 hex digits of its content's SHA-256, keys in order."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def score_text(item: BenchmarkItem, answer: str) -> tuple[Outcome, str]:
    """The outcome of a text answer and what it rests on. `correct` where it equals one of the references
    after the item's normalising; an item that is to be executed (`scoring`), or has no reference, is `not_run`."""
    if item.mode != "text":
        return "not_run", f"mode {item.mode!r} is executed, and nothing here executes it"
    if not item.references:
        return "not_run", "the item has no reference answer to compare with"
    if not normalise_text(answer):
        return "no_answer", "the answer is empty"
    if any(same_answer(answer, reference, item.normalise) for reference in item.references):
        return "correct", f"equals a reference ({item.normalise})"
    return "wrong", f"differs from the reference ({item.normalise})"


def score_of(outcome: Outcome) -> float | None:
    """1 for `correct`, 0 for every failure, None where it was not run: neither a pass nor a failure."""
    return None if outcome == "not_run" else float(outcome == "correct")


def _text(fields: JsonObject, key: str, missing: Any = ...) -> Any:
    value = fields.get(key)
    if value is None and missing is not ...:
        return missing
    if not isinstance(value, str):
        raise _ItemError(
            f"{key!r} is missing: text was expected" if value is None else f"{key!r} is not text"
        )
    return value


def _texts(fields: JsonObject, key: str) -> tuple[str, ...]:
    value = fields.get(key)
    values = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) for one in values):
        raise _ItemError(f"{key!r} is neither text nor a list of texts")
    return tuple(values)


def _object(fields: JsonObject, key: str) -> JsonObject:
    value = fields.get(key)
    if value is not None and not isinstance(value, dict):
        raise _ItemError(f"{key!r} is not an object")
    return value or {}


def _wanted(fields: JsonObject, mode: str) -> Expect | None:
    if mode == "text":
        return None
    try:
        return read_expect(fields.get("expect"))
    except ExpectError as error:
        raise _ItemError(str(error)) from error


def _files(fields: JsonObject) -> Mapping[str, str]:
    files = _object(fields, "files")
    for name, text in files.items():
        if not isinstance(text, str):
            raise _ItemError(f"'files.{name}' is not text")
        if not _FILE_NAME.fullmatch(name):
            raise _ItemError(f"'files.{name}': a plain file name was expected (letters, digits, . _ -)")
    return files


def _choice(fields: JsonObject, key: str, allowed: tuple[str, ...], missing: str) -> str:
    value = fields.get(key, missing)
    if value not in allowed:
        raise _ItemError(f"unknown {key} {value!r}: expected one of {', '.join(allowed)}")
    return str(value)


def _distinct(texts: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in texts if normalise_text(text)))
