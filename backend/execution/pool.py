"""The execution children that a run keeps: started when first needed, each doing one thing at a time.

A child that does not answer in time, or whose answer is no message, is ended and another one takes its place.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend.execution import messages
from backend.execution.tools import ChildModule, Tools, child_command, child_environment

_START_S = 30.0
_ASSEMBLE_S = 60.0
_RUN_SLACK_S = 30.0
_MOST_CHILDREN = 8


class NotRunHere(Exception):
    """Nothing was executed and nothing is said about the answer: the message says what is missing here."""


class ChildFailed(Exception):
    """The child ended, or fell silent, over this piece of work."""


@dataclass(frozen=True, slots=True)
class AssemblyReply:
    """What a child says of one run of asar. `errors`, `output` and `rom` are foreign bytes."""

    status: int
    ended_by: str
    late: bool
    overflow: bool
    output: bytes
    errors: bytes
    rom: bytes


@dataclass(frozen=True, slots=True)
class CaseToRun:
    """One case: the whole WRAM before it, the most frames, and the bytes (by WRAM offset) that end it."""

    wram: bytes
    frames: int
    done: tuple[tuple[int, bytes], ...]

    @property
    def cpu_s(self) -> int:
        """Processor time after which it is ended: a frame takes one or two milliseconds."""
        return 2 + self.frames // 20

    @property
    def wall_s(self) -> float:
        """Time after which it is ended though it did not use that up: a machine that is busy is no fault of it."""
        return self.cpu_s + 6.0


@dataclass(frozen=True, slots=True)
class CaseReply:
    """How a case ended: finished, not_finished, late, crash or not_reached; the WRAM after the first two."""

    ended: str
    frames: int
    wram: bytes


@dataclass(slots=True)
class _Child:
    process: asyncio.subprocess.Process

    async def ask(
        self, header: dict[str, Any], blobs: Sequence[bytes], wall_s: float
    ) -> tuple[dict[str, Any], list[bytes]]:
        async with asyncio.timeout(wall_s):
            assert self.process.stdin is not None  # noqa: S101 - started with pipes
            self.process.stdin.write(messages.pack(header, blobs))
            await self.process.stdin.drain()
            return await _receive(self.process)

    async def end(self) -> None:
        if self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()


async def _receive(process: asyncio.subprocess.Process) -> tuple[dict[str, Any], list[bytes]]:
    assert process.stdout is not None  # noqa: S101 - started with pipes
    prefix = await process.stdout.readexactly(messages.LENGTH_BYTES)
    header: dict[str, Any] = json.loads(await process.stdout.readexactly(messages.header_length(prefix)))
    body = await process.stdout.readexactly(sum(header["blobs"]))
    return header, messages.cut(header, body)


@dataclass(slots=True)
class Execution:
    """Executes through at most as many children at once as `open_execution` was told. `folder` is theirs, made
    with the first of them; `roms` are the ROMs of items' own setups, made once: by their text."""

    tools: Tools
    folder: Path | None
    places: asyncio.Semaphore
    idle: dict[ChildModule, list[_Child]] = field(
        default_factory=lambda: {"asar_child": [], "core_child": []}
    )
    roms: dict[str, bytes] = field(default_factory=dict)

    async def assemble(
        self, files: Mapping[str, str], main: str, rom: bytes | None, *, hide_files: bool
    ) -> AssemblyReply:
        """Assemble `main` of the files, over `rom` where one is given; `hide_files`: only where the sandbox
        does so. Raises NotRunHere, ChildFailed."""
        if self.tools.asar.path is None:
            raise NotRunHere(self.tools.asar.reason)
        header = {
            "kind": "assemble",
            "files": list(files),
            "main": main,
            "patch": rom is not None,
            "hide_files": hide_files,
        }
        texts = [text.encode("utf-8", "replace") for text in files.values()]
        said, blobs = await self._ask(
            "asar_child", header, [*texts, rom] if rom is not None else texts, _ASSEMBLE_S
        )
        if said["broken"]:
            raise NotRunHere(said["broken"])
        output, errors, made = blobs
        ended_by = _signal_name(said["signal"])
        return AssemblyReply(said["status"], ended_by, said["late"], said["overflow"], output, errors, made)

    async def run(self, rom: bytes, cases: Sequence[CaseToRun]) -> list[CaseReply]:
        """Run the ROM once for each case. Cases after one that crashed or took too long are not reached.
        Raises NotRunHere, ChildFailed."""
        if self.tools.core.path is None:
            raise NotRunHere(self.tools.core.reason)
        header = {
            "kind": "run",
            "cases": [
                {
                    "frames": case.frames,
                    "cpu_s": case.cpu_s,
                    "wall_s": case.wall_s,
                    "done": [[offset, value.hex()] for offset, value in case.done],
                }
                for case in cases
            ],
        }
        wall_s = _RUN_SLACK_S + sum(case.wall_s for case in cases)
        said, wrams = await self._ask("core_child", header, [rom, *(case.wram for case in cases)], wall_s)
        if any(case["ended"] == "broken" for case in said["cases"]):
            raise NotRunHere("the sandbox of a case could not be set up")
        if said["refused"]:
            raise ChildFailed(said["refused"])
        return [
            CaseReply(case["ended"], case["frames"], wram)
            for case, wram in zip(said["cases"], wrams, strict=True)
        ]

    async def _ask(
        self, module: ChildModule, header: dict[str, Any], blobs: Sequence[bytes], wall_s: float
    ) -> tuple[dict[str, Any], list[bytes]]:
        async with self.places:
            child = self.idle[module].pop() if self.idle[module] else await self._start(module)
            try:
                answer = await child.ask(header, blobs, wall_s)
            except (OSError, EOFError, ValueError, KeyError, TimeoutError) as error:
                await child.end()
                raise ChildFailed(f"the execution child failed over it ({type(error).__name__})") from error
            except BaseException:
                await child.end()
                raise
            self.idle[module].append(child)
            return answer

    async def _start(self, module: ChildModule) -> _Child:
        tool = self.tools.asar.path if module == "asar_child" else self.tools.core.path
        assert tool is not None  # noqa: S101 - callers looked
        if self.folder is None:
            self.folder = Path(tempfile.mkdtemp(prefix="hafs-execution-"))
        process = await asyncio.create_subprocess_exec(
            *child_command(module, tool, self.folder),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=child_environment(),
            cwd=self.folder,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_START_S):
                hello, _ = await _receive(process)
        except (EOFError, ValueError, KeyError, TimeoutError) as error:
            await _Child(process).end()
            raise NotRunHere(f"the execution child did not start ({type(error).__name__})") from error
        except BaseException:
            await _Child(process).end()
            raise
        if hello["error"]:
            await _Child(process).end()
            raise NotRunHere(hello["error"])
        return _Child(process)


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number else ""


@asynccontextmanager
async def open_execution(tools: Tools, children: int | None = None) -> AsyncIterator[Execution]:
    """Execution for a block, by at most `children` processes at once (as many as there are cores, up to 8,
    where nothing is said: one takes 100 MB). Nothing is started before it is needed, and all of it ends with
    the block."""
    places = asyncio.Semaphore(children or min(os.cpu_count() or 1, _MOST_CHILDREN))
    execution = Execution(tools, None, places)
    try:
        yield execution
    finally:
        for child in [child for some in execution.idle.values() for child in some]:
            await child.end()
        if execution.folder is not None:
            await asyncio.to_thread(shutil.rmtree, execution.folder, ignore_errors=True)
