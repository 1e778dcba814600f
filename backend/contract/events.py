"""What a worker tells: event records, one JSON object a line, numbered.

A line is `{"seq": 7, "t": 1764000000.1, "event": "metrics", "step": 3, "loss": 0.7, ...}`; fields that are
not known are left out. A number that is not finite is written as null and named in `"nonfinite"`
(`{"loss": "nan"}`), because JSON has no NaN; reading gives the float back. `seq` starts at 1 in each file
and has no gaps, so a follower that reads by byte offset can prove that it lost nothing.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

ENVIRONMENT = "HAFS_EVENTS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The work is about to begin: models and data are loaded and checked."""

    name: ClassVar[str] = "started"
    kind: str
    model: str
    device: str
    total_steps: int | None = None
    items: int | None = None
    train_samples: int | None = None
    eval_samples: int | None = None
    trainable_parameters: int | None = None
    resumed_step: int | None = None
    load_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Figures of one training step. Losses in nats a token, log-probabilities in nats a sequence."""

    name: ClassVar[str] = "metrics"
    step: int
    total_steps: int
    epoch: float | None = None
    loss: float | None = None
    eval_loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_second: float | None = None
    step_time_s: float | None = None
    token_accuracy: float | None = None
    peak_memory_mib: float | None = None
    rewards_chosen: float | None = None
    rewards_rejected: float | None = None
    rewards_margin: float | None = None
    rewards_accuracy: float | None = None
    logps_chosen: float | None = None
    logps_rejected: float | None = None
    eval_rewards_margin: float | None = None
    eval_rewards_accuracy: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint is complete on disk."""

    name: ClassVar[str] = "checkpoint"
    step: int
    path: str
    loss: float | None = None
    eval_loss: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One benchmark item is answered. `finish` is `stop` or `length`."""

    name: ClassVar[str] = "item"
    benchmark: str
    id: str
    answer: str
    reference: str | None = None
    family: str | None = None
    category: str | None = None
    tokens: int | None = None
    finish: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One sampled answer to a prompt; `index` counts the prompt's answers from 0."""

    name: ClassVar[str] = "candidate"
    prompt_id: str
    index: int
    answer: str
    tokens: int | None = None
    finish: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Perplexity:
    """Perplexities over held-out rows.

    `completion` is over the tokens of the answers given their prompts, as trained; `completion_losses` has
    the mean loss of each row (nats a token), in the file's order, for paired comparison. `word_rolling` and
    `byte_rolling` follow lm-evaluation-harness (disjoint windows, a token of context) over each row's plain
    text: its `text`, else prompt, blank line, answer, without the chat template. `word_stride` scores the same
    text with a window that slides by `stride`, as in Hugging Face's guide; it is lower for long texts.
    """

    name: ClassVar[str] = "perplexity"
    documents: int
    completion: float | None = None
    completion_tokens: int | None = None
    completion_losses: list[float | None] | None = None
    word_rolling: float | None = None
    byte_rolling: float | None = None
    word_stride: float | None = None
    stride: int | None = None
    max_length: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Work that has no metrics of its own goes on; `total` 0 means that it is not known."""

    name: ClassVar[str] = "progress"
    what: str
    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """Something is doubtful and the job goes on. `code` is a word that does not change."""

    name: ClassVar[str] = "warning"
    code: str
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The job ended well. `artifact` is what it made: a folder or a file on the host."""

    name: ClassVar[str] = "done"
    artifact: str
    seconds: float
    step: int | None = None
    loss: float | None = None
    eval_loss: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The job ended badly, or was stopped (`code` is `stopped`, and `resumable` says if it can go on)."""

    name: ClassVar[str] = "failed"
    code: str
    message: str
    remedy: str
    exit_code: int
    resumable: bool = False


Event = (
    Started | Metrics | Checkpoint | Item | Candidate | Perplexity | Progress | Warned | Done | Failed
)  # fmt: skip
EVENTS: dict[str, type[Event]] = {
    cls.name: cls
    for cls in (
        Started,
        Metrics,
        Checkpoint,
        Item,
        Candidate,
        Perplexity,
        Progress,
        Warned,
        Done,
        Failed,
    )
}


@dataclass(frozen=True, slots=True)
class Record:
    """An event with its place in the stream. `at` is seconds since the epoch, by the host's clock."""

    seq: int
    at: float
    event: Event


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a piece of a stream held. `consumed` bytes are done with; the rest is a line still growing."""

    records: tuple[Record, ...]
    consumed: int
    malformed: tuple[str, ...]


def encode(record: Record) -> bytes:
    """One line, ending in a newline."""
    body: dict[str, Any] = {"seq": record.seq, "t": round(record.at, 3), "event": record.event.name}
    nonfinite: dict[str, str] = {}
    for name, value in dataclasses.asdict(record.event).items():
        if isinstance(value, float) and not math.isfinite(value):
            nonfinite[name] = repr(value)
            body[name] = None
        elif isinstance(value, list):
            body[name] = [
                None if isinstance(part, float) and not math.isfinite(part) else part for part in value
            ]
        elif value is not None:
            body[name] = value
    if nonfinite:
        body["nonfinite"] = nonfinite
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def decode(line: bytes | str) -> Record:
    """Reads one line. Fields of a newer worker are ignored.

    Raises:
        ValueError: not JSON, not an event, or an event without what it must have.
    """
    body: Any = json.loads(line)
    if not isinstance(body, dict) or body.get("event") not in EVENTS:
        raise ValueError(f"not an event of this version: {str(line)[:200]}")
    cls = EVENTS[body["event"]]
    for name, value in body.get("nonfinite", {}).items():
        body[name] = float(value)
    fields = {field.name: body[field.name] for field in dataclasses.fields(cls) if field.name in body}
    try:
        return Record(int(body["seq"]), float(body["t"]), cls(**fields))
    except (KeyError, TypeError) as error:
        raise ValueError(f"an incomplete {cls.name} event ({error}): {str(line)[:200]}") from None


def parse(data: bytes) -> Parsed:
    """Reads the whole lines of a piece of a stream; a torn last line is left for the next piece.

    A whole line that is not an event (a crash tore it, and the next process went on after it) is reported
    in `malformed` and loses nothing else.
    """
    consumed = data.rfind(b"\n") + 1
    records: list[Record] = []
    malformed: list[str] = []
    for line in data[:consumed].splitlines():
        if not line.strip():
            continue
        try:
            records.append(decode(line))
        except ValueError:
            malformed.append(line.decode(errors="replace"))
    return Parsed(tuple(records), consumed, tuple(malformed))


class EventWriter:
    """Appends events to a file, each flushed to the system at once. Without a path it keeps silent.

    A file that exists is continued: numbers go on after its last whole line, and a torn last line is
    closed, never cut, since a follower may have read it.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._seq = 0
        self._file = None
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_bytes() if path.exists() else b""
        self._seq = max((record.seq for record in parse(before).records), default=0)
        self._file = path.open("ab")
        if before and not before.endswith(b"\n"):
            self._file.write(b"\n")

    @classmethod
    def from_environment(cls, path: str = "") -> EventWriter:
        """Writes to the path given, else to the one that `$HAFS_EVENTS` names, else nowhere."""
        name = path or os.environ.get(ENVIRONMENT, "")
        return cls(Path(name) if name else None)

    def emit(self, event: Event) -> Record:
        """Writes one event and returns it with its number."""
        self._seq += 1
        record = Record(self._seq, time.time(), event)
        if self._file is not None:
            self._file.write(encode(record))
            self._file.flush()
        return record

    def close(self) -> None:
        """Closes the file; emitting afterwards is an error of the caller."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
