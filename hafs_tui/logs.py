"""Where warnings of `backend` and `remote` go: a file while the app has the screen, standard error otherwise.

Both are made harmless first: a host's words may hold escape codes, and an error may repeat a key.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path

from hafs_tui.crash import mask_secrets
from hafs_tui.glyphs import sanitize

_OURS = ("backend", "remote", "hafs_tui")
_MOST_BYTES = 1_000_000


class _Harmless(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return sanitize(mask_secrets(super().format(record)))


@contextmanager
def logs_to_file(folder: Path) -> Iterator[None]:
    """For the block, to `hafs-tui.log` in `folder`, made when there is something to say and turned over at 1 MB."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "hafs-tui.log"
    handler = RotatingFileHandler(path, maxBytes=_MOST_BYTES, backupCount=2, encoding="utf-8", delay=True)
    handler.setFormatter(_Harmless("%(asctime)s [%(levelname)s] %(name)s: %(message)s"))
    with _attached(handler):
        yield


@contextmanager
def logs_to_stderr() -> Iterator[None]:
    """For the block, to standard error, a line for each warning."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Harmless("%(levelname)s: %(message)s"))
    with _attached(handler):
        yield


@contextmanager
def _attached(handler: logging.Handler) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _OURS]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, propagate in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.propagate = propagate
        handler.close()
