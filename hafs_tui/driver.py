"""The terminal driver, made to survive a terminal that goes away.

When a terminal hangs up, the kernel sends SIGHUP and then SIGCONT. Textual's driver takes the second for the
end of a stop and starts itself again beside the first; its writer dies on the missing terminal, its queue
fills, and the program hangs in its own shutdown. Here only a stop that was seen is continued, and writing to
a terminal that is gone is no error: the app hears of it by the signal, or by looking.
"""

from __future__ import annotations

import sys
from typing import IO, Any

from textual.driver import Driver


class _Output:
    """A text file whose writes come to nothing once its terminal is gone."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        try:
            return self._file.write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError:
            return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def surviving(driver: type[Driver]) -> type[Driver]:
    """`driver`, or its surviving kind where it is the one of Unix terminals."""
    if sys.platform == "win32":
        return driver
    from textual.drivers.linux_driver import LinuxDriver

    if driver is not LinuxDriver:
        return driver

    class SurvivingDriver(LinuxDriver):
        """Continues only after a stop, and writes to what is left of the terminal."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._stopped = False
            self._file: Any = _Output(self._file)

        def _sigtstp_application(self, *signal: Any) -> None:
            self._stopped = True
            super()._sigtstp_application(*signal)

        def _sigcont_application(self, *signal: Any) -> None:
            if self._stopped:
                self._stopped = False
                super()._sigcont_application(*signal)

    return SurvivingDriver
