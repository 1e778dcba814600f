"""What is left of a crash: a file in `logs/` with the traceback, and never a secret.

Local variables stay out, since they hold prompts, keys and rows. Values of environment variables that
look like secrets are masked wherever an error message repeats them.
"""

from __future__ import annotations

import os
import platform
import re
import traceback
from datetime import UTC, datetime
from pathlib import Path

_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL)S?$", re.IGNORECASE)
_SECRET_SHAPE = re.compile(r"(?i)\b(bearer\s+|api[_-]?key[\"'=:\s]+)[^\s\"'&]{8,}")
_SHORTEST_SECRET = 6


def mask_secrets(text: str) -> str:
    """`text` without the values of secret environment variables and without bearer tokens."""
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_SECRET and _SECRET_NAME.search(name):
            text = text.replace(value, f"<{name}>")
    return _SECRET_SHAPE.sub(r"\1<masked>", text)


def write_crash(error: BaseException, logs: Path) -> Path:
    """Write the traceback of `error` to a new file in `logs` (made if missing) and return its path.

    Raises OSError when the folder cannot be written.
    """
    logs.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    path = logs / f"crash_{now:%Y%m%d_%H%M%S}_{os.getpid()}.log"
    lines = traceback.format_exception(error)
    head = f"{now.isoformat()} hafs-tui on Python {platform.python_version()} {platform.system()}\n\n"
    with path.open("a", encoding="utf-8", errors="backslashreplace") as log:
        log.write(head + mask_secrets("".join(lines)) + "\n")
    path.chmod(0o600)
    return path
