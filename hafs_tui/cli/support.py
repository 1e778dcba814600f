"""What all commands share: the workspace, exit codes, output, and how an error is told.

Exit codes: 0 done, 1 failed, 2 wrong use, 3 refused by a gate or a budget, 130 and 143 stopped by a signal.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec, TypeVar

import click

from hafs_tui.sanitize import sanitize

if TYPE_CHECKING:
    from backend.settings import Workspace

P = ParamSpec("P")
T = TypeVar("T")

EXIT_FAILED, EXIT_WRONG_USE, EXIT_REFUSED = 1, 2, 3


class Refused(click.ClickException):
    """A gate or a budget says no: exit code 3."""

    exit_code = EXIT_REFUSED


@dataclasses.dataclass(frozen=True)
class Session:
    """What the options before the command say."""

    home: Path | None
    as_json: bool

    def show(self, value: Any, text: str) -> None:
        """The result: `value` as one JSON document, or `text` for people (foreign text made harmless)."""
        if self.as_json:
            click.echo(json.dumps(plain(value), ensure_ascii=False, allow_nan=False))
        else:
            click.echo(sanitize(text))

    def tell(self, text: str) -> None:
        """Progress and remarks: on stderr, and not at all with --json."""
        if not self.as_json:
            click.echo(sanitize(text), err=True)


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
    if isinstance(value, float) and value - value != 0:
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
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.split())


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

        for number in (
            signal.SIGINT,
            signal.SIGTERM,
            *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []),
        ):
            loop.add_signal_handler(number, stop, number)
        return await main()

    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError:
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
    if type(error).__module__.startswith(("backend.", "remote.", "config.")) or isinstance(error, OSError):
        click.echo(sanitize(f"error: {error}"), err=True)
    else:
        click.echo(sanitize("".join(traceback.format_exception(error))), err=True)
        click.echo("error: this is a fault of the program; the lines above say where", err=True)
    sys.exit(getattr(error, "exit_code", EXIT_FAILED))


def _keep_library_logs_off() -> None:
    for name in ("asyncssh", "google_genai", "httpx", "httpx2", "anthropic"):
        logging.getLogger(name).setLevel(logging.ERROR)
