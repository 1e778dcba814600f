"""What all commands share: the workspace, exit codes, output, and how an error is told.

Exit codes: 0 done, 1 failed, 2 wrong use, 3 refused by a gate or a budget, 130 and 143 stopped by a signal.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import logging
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec, TypeVar

import click

from hafs_tui.crash import mask_secrets
from hafs_tui.glyphs import sanitize

if TYPE_CHECKING:
    from backend.contract.events import Record
    from backend.settings import Workspace

P = ParamSpec("P")
T = TypeVar("T")

EXIT_FAILED, EXIT_WRONG_USE, EXIT_REFUSED = 1, 2, 3


class Failed(Exception):
    """A command failed; the message says what, where and the remedy."""


@dataclasses.dataclass(frozen=True)
class Session:
    """What the options before the command say."""

    home: Path | None
    as_json: bool

    def show(self, value: Any, text: str) -> None:
        """The result: `value` as one JSON document, or `text` for people (foreign text made harmless)."""
        if self.as_json:
            click.echo(json.dumps(plain(value), ensure_ascii=sys.stdout.isatty(), allow_nan=False))
        else:
            click.echo(sanitize(text))

    def tell(self, text: str) -> None:
        """Remarks: on stderr, and not at all with --json."""
        if not self.as_json:
            click.echo(sanitize(text), err=True)

    def progress(self) -> Callable[[str], None]:
        """A `tell` for what comes often: at most one line a second, and none of what ends within one."""
        told_at = time.monotonic()

        def tell(text: str) -> None:
            nonlocal told_at
            if time.monotonic() - told_at >= 1.0:
                told_at = time.monotonic()
                self.tell(text)

        return tell


def step_teller(session: Session) -> Callable[[Record], None]:
    """Tells a worker's events as lines of progress: steps at most once a second, trouble always."""
    progress = session.progress()

    def tell(record: Record) -> None:
        from backend.contract import events

        event = record.event
        if isinstance(event, events.Metrics) and event.loss is not None:
            margin = "" if event.rewards_margin is None else f", margin {event.rewards_margin:.4f}"
            speed = "" if event.tokens_per_second is None else f", {event.tokens_per_second:.0f} tokens/s"
            progress(f"step {event.step}/{event.total_steps}: loss {event.loss:.4f}{margin}{speed}")
        elif isinstance(event, events.Warned):
            session.tell(f"warning: {event.message} {event.remedy}".rstrip())
        elif isinstance(event, events.Failed):
            session.tell(f"failed: {event.message} {event.remedy}".rstrip())

    return tell


@contextmanager
def going_on(session: Session, what: str, job_id: str) -> Iterator[None]:
    """A block that watches a job: whoever stops watching is told that the job itself goes on."""
    try:
        yield
    except asyncio.CancelledError:
        session.tell(
            f"{what} goes on; watch it: hafs-tui job follow {job_id}; end it: hafs-tui job cancel {job_id}"
        )
        raise


def copy_teller(session: Session) -> Callable[[str, int, int], None]:
    """Tells how far a copy is, at most once a second."""
    progress = session.progress()
    return lambda what, done, total: progress(f"{what}: {size(done)} of {size(total)}")


def plain(value: Any) -> Any:
    """Dataclasses, paths and tuples as JSON knows them; a number that is not finite becomes null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A plain table: columns as wide as their content, numbers to the right."""
    texts = [["" if cell is None else _cell(cell) for cell in row] for row in rows]
    widths = [max(len(line[n]) for line in [list(headers), *texts]) for n in range(len(headers))]
    right = [
        all(isinstance(row[n], (int, float)) or row[n] is None for row in rows) for n in range(len(headers))
    ]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(
            c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True)
        ).rstrip()

    return "\n".join([line(headers), *(line(text) for text in texts)]) if rows else "(none)"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"
    return " ".join(str(value).split())


def facts(values: Mapping[str, Any], indent: str = "") -> str:
    """An object for people: a line for each key that has a value; times as dates, bytes as GiB, tables within
    one line where they are flat."""
    lines = []
    for key, value in values.items():
        if isinstance(value, Mapping) and any(isinstance(part, (Mapping, list)) for part in value.values()):
            lines += [f"{indent}{_words(key)}:", facts(value, indent + "  ")]
        elif (text := _fact(key, value)) != "":
            lines.append(f"{indent}{_words(key)}: {text}")
    return "\n".join(lines)


def _words(key: str) -> str:
    return key.removesuffix("_at").removesuffix("_bytes").replace("_", " ")


def _fact(key: str, value: Any) -> str:
    if value is None or value in ("", [], {}):
        return ""
    if key.endswith("_at") and isinstance(value, (int, float)):
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    if key.endswith("_bytes") and isinstance(value, int):
        return size(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{part} {text}" for part, one in value.items() if (text := _fact(str(part), one)))
    if isinstance(value, list):
        return ", ".join(_fact("", one) for one in value)
    return str(value) if isinstance(value, bool) else _cell(value)


def many(count: int, word: str) -> str:
    """A number with its noun: 1 pair, 2 pairs."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def size(count: int) -> str:
    """Bytes for people: "12 bytes", "3.4 MiB"."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"


def duration(seconds: float | None) -> str:
    """Seconds for people: "42 s", "7 min 5 s", "3 h 20 min"."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def in_workspace(
    body: Callable[Concatenate[Workspace, Session, P], Awaitable[T]],
) -> Callable[Concatenate[P], T]:
    """Run an async command body with the open workspace and the session before its own arguments.

    Errors of ours become their message and an exit code; SIGTERM and SIGINT cancel the body, which then
    puts things in order, and the code says which signal it was.
    """

    @functools.wraps(body)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        session = click.get_current_context().find_object(Session)
        assert session is not None  # noqa: S101 - the root command always makes one

        async def main() -> T:
            from backend.settings import open_workspace

            async with open_workspace(session.home) as ws:
                return await body(ws, session, *args, **kwargs)

        return run_async(main)

    return run


def run_async(main: Callable[[], Awaitable[T]]) -> T:
    """Run `main` to its end in a new event loop, with signals and errors handled as for a command."""
    _keep_library_logs_off()
    stopped_by: list[int] = []

    async def guarded() -> T:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - we are in one

        def stop(number: int) -> None:
            stopped_by.append(number)
            task.cancel()

        if sys.platform != "win32":  # its event loop takes no signals: Ctrl+C raises KeyboardInterrupt there
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, stop, number)
        return await main()

    from hafs_tui.logs import logs_to_stderr

    try:
        with logs_to_stderr():
            return asyncio.run(guarded())
    except (asyncio.CancelledError, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(128 + (stopped_by[0] if stopped_by else signal.SIGINT))
    except BrokenPipeError:
        # Whoever read our output has enough (head, less): not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except BaseExceptionGroup as group:
        _end(_first(group))
    except Exception as error:
        _end(error)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _end(error: BaseException) -> NoReturn:
    if isinstance(error, click.ClickException):
        raise error
    if type(error).__module__.startswith(("backend.", "remote.", "config.", "hafs_tui.")) or isinstance(
        error, OSError
    ):
        click.echo(sanitize(mask_secrets(f"error: {error}")), err=True)
    else:
        click.echo(sanitize(mask_secrets("".join(traceback.format_exception(error)))), err=True)
        click.echo("error: this is a fault of the program; the lines above say where", err=True)
    sys.exit(getattr(error, "exit_code", EXIT_FAILED))


def _keep_library_logs_off() -> None:
    for name in ("asyncssh", "google_genai", "httpx", "httpx2", "anthropic"):
        logging.getLogger(name).setLevel(logging.ERROR)
