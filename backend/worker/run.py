"""The frame of every worker: flags and specification in, events and an exit code out.

Each worker is `python -m backend.worker.KIND --spec FILE`, or the same parameters as flags, or both (flags
lie over the file). A stop signal asks the work to save and end; a second one ends it at once.
"""

from __future__ import annotations

import _thread
import argparse
import errno
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from backend.contract.events import ENVIRONMENT, Done, EventWriter, Failed, Warned
from backend.contract.job import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_REFUSED,
    EXIT_STOPPED,
    PARAMETERS,
    JobSpec,
    Kind,
    read_spec,
)
from backend.contract.options import ParameterError, add_arguments, from_values, given_values, to_values

TRAINING_LIBRARIES = ("torch", "transformers", "peft", "trl", "datasets", "accelerate")
INSTALL = "pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2 trl==1.16.0 datasets==5.2.0 accelerate==1.15.0"


class Refused(Exception):
    """The job cannot be done as asked. `code` is a word that does not change; the exit code says who erred."""

    def __init__(self, code: str, message: str, remedy: str, exit_code: int = EXIT_REFUSED) -> None:
        super().__init__(message)
        self.code, self.message, self.remedy, self.exit_code = code, message, remedy, exit_code


STOP_FILE = "HAFS_STOP_FILE"


class Stopped(BaseException):
    """A stop signal ended the work. `resumable` says whether what is on disk can go on.

    Not an Exception, so that no library on the way takes it for one of its own troubles.
    """

    def __init__(self, resumable: bool, detail: str) -> None:
        super().__init__(detail)
        self.resumable, self.detail = resumable, detail


@dataclass
class Session:
    """What a worker's work gets: where to tell, whether to resume, and whether to stop.

    The work says in turn when a stop can wait until it has saved (`can_save`), and whether what is on disk
    can be gone on from (`resumable`).
    """

    events: EventWriter
    resume: bool
    started: float = field(default_factory=time.monotonic)
    stop_requested: bool = False
    can_save: bool = False
    resumable: bool = False

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """The first signal, while the work can save: it finishes its step and saves. Any other ends it now."""
        if self.can_save and not self.stop_requested:
            self.stop_requested = True
            return
        raise Stopped(self.resumable, f"stopped by signal {number}")

    def warn(self, code: str, message: str, remedy: str = "") -> None:
        """Tells of something doubtful, in the log and as an event."""
        print(f"warning: {message}{'; ' + remedy if remedy else ''}", file=sys.stderr, flush=True)
        self.events.emit(Warned(code=code, message=message, remedy=remedy))

    def seconds(self) -> float:
        """Seconds since the worker began."""
        return round(time.monotonic() - self.started, 2)


Work = Callable[[Any, Session], Done]


def run(kind: Kind, work: Work, argv: list[str] | None = None) -> int:
    """Runs a worker's work on its parameters and returns the process's exit code."""
    arguments = _parser(kind).parse_args(argv)
    try:
        job = _job(kind, arguments)
    except (ParameterError, OSError) as error:
        with EventWriter.from_environment(arguments.events) as events:
            return _fail(events, Refused("bad_parameters", str(error), "correct the parameters"))
    _quiet_threads()
    path = arguments.events or os.environ.get(ENVIRONMENT, "") or _own_events_file(job)
    with EventWriter.from_environment(path) as events:
        session = Session(events, job.resume, resumable=job.resume)
        with _signals_to(session):
            return _work(work, job, session)


def _work(work: Work, job: JobSpec, session: Session) -> int:
    try:
        done = work(job.parameters, session)
    except Stopped as stop:
        return _stopped(session.events, stop)
    except Exception as error:
        return _fail(session.events, error)
    session.events.emit(done)
    print(f"done in {done.seconds:.1f} s: {done.artifact}", flush=True)
    return EXIT_DONE


@contextmanager
def _signals_to(session: Session) -> Iterator[None]:
    """Stop signals reach the session while its work runs."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGBREAK") if hasattr(signal, name)]
    before = {number: signal.signal(number, session.on_signal) for number in numbers}
    if os.name == "nt" and os.environ.get(STOP_FILE):
        threading.Thread(target=_watch_stop_file, args=(Path(os.environ[STOP_FILE]),), daemon=True).start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch_stop_file(file: Path) -> None:
    """On Windows no signal reaches a job: its stop file does, as the same request."""
    while not file.exists():
        time.sleep(0.5)
    _thread.interrupt_main(signal.SIGTERM)


def _own_events_file(job: JobSpec) -> str:
    """`events.jsonl` in the output folder; a job that does not resume sets an earlier one aside."""
    path = Path(job.parameters.output_dir) / "events.jsonl"
    if path.exists() and not job.resume:
        path.rename(path.with_name(f"events-{path.stat().st_mtime_ns}.jsonl"))
    return str(path)


def _parser(kind: Kind) -> argparse.ArgumentParser:
    parameters = PARAMETERS[kind]
    parser = argparse.ArgumentParser(
        prog=f"python -m backend.worker.{kind}",
        description=(parameters.__doc__ or "").strip().splitlines()[0],
        epilog="Exit codes: 0 done, 1 failed, 2 refused (what was asked cannot be done), 143 stopped.",
    )
    parser.add_argument("--spec", default="", help="a job specification (JSON); flags lie over it")
    parser.add_argument(
        "--events", default="", help="events file (else $HAFS_EVENTS, else OUTPUT_DIR/events.jsonl)"
    )
    parser.add_argument("--resume", action="store_true", help="go on from what output_dir holds")
    add_arguments(parser, parameters)
    return parser


def _job(kind: Kind, arguments: argparse.Namespace) -> JobSpec:
    """The specification's file, if there is one, with the given flags over it."""
    cls = PARAMETERS[kind]
    values: Mapping[str, Any] = {}
    resume = bool(arguments.resume)
    if arguments.spec:
        spec = read_spec(Path(arguments.spec))
        if spec.kind != kind:
            raise ParameterError([f"{arguments.spec}: is for {spec.kind}; run backend.worker.{spec.kind}"])
        values, resume = to_values(spec.parameters), resume or spec.resume
    return JobSpec(kind, from_values(cls, {**values, **given_values(arguments, cls)}), resume)


def _quiet_threads() -> None:
    """Must run before torch is imported: OpenMP reads these once.

    On cores that are shared, threads that spin while they wait made steps five times slower.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def _stopped(events: EventWriter, stop: Stopped) -> int:
    remedy = "resume it to go on from there" if stop.resumable else "start it again"
    events.emit(
        Failed(
            code="stopped",
            message=str(stop),
            remedy=remedy,
            exit_code=EXIT_STOPPED,
            resumable=stop.resumable,
        )
    )
    print(f"stopped: {stop}; {remedy}", file=sys.stderr, flush=True)
    return EXIT_STOPPED


def _fail(events: EventWriter, error: Exception) -> int:
    refused = error if isinstance(error, Refused) else _explain(error)
    if refused is not error:
        traceback.print_exception(error)
    print(f"{refused.code}: {refused.message}\nremedy: {refused.remedy}", file=sys.stderr, flush=True)
    events.emit(
        Failed(
            code=refused.code,
            message=refused.message,
            remedy=refused.remedy,
            exit_code=refused.exit_code,
        )
    )
    return refused.exit_code


def _explain(error: Exception) -> Refused:
    """A failure of the libraries or the machine, told with its remedy."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, ImportError) and (error.name or "").split(".")[0] in TRAINING_LIBRARIES:
        return Refused("no_training_stack", f"{error.name} is not installed for {sys.executable}", INSTALL)
    if (
        type(error).__name__ == "OutOfMemoryError"
        or isinstance(error, MemoryError)
        or "can't allocate" in text
    ):
        return Refused(
            "out_of_memory",
            text,
            "a smaller batch_size with more gradient_accumulation_steps, gradient_checkpointing, "
            "a shorter max_length, or load_in_4bit",
            EXIT_FAILED,
        )
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in text:
        return Refused("disk_full", text, "free space on the host, then resume", EXIT_FAILED)
    return Refused("error", text, "the traceback is in the job's log", EXIT_FAILED)
