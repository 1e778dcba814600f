"""A host that is reached through an agent. Local and SSH hosts differ only in how the agent is started."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Protocol

from remote import transfer
from remote.errors import HostError, LinkLost
from remote.host import (
    Chunk,
    Completed,
    GpuDetail,
    HostConfig,
    JobStatus,
    Launch,
    Probe,
    Progress,
    Reading,
    Stream,
    Transfer,
)
from remote.readings import details_of, readings_of
from remote.session import Fields, Frame, Session

LONG_POLL_S = 10.0
FIRST_PAUSE_S, LAST_PAUSE_S = 0.25, 10.0
READ_LIMIT = 16 * 1024 * 1024


class Connector(Protocol):
    """Starts agents on one host."""

    async def open_session(self) -> Session: ...
    async def forward(self, port: int) -> int: ...
    async def aclose(self) -> None: ...


class Lane:
    """One session that is opened when needed and again after it broke, by one caller at a time."""

    def __init__(self, name: str, connector: Connector) -> None:
        self._name = name
        self._connector = connector
        self._lock = asyncio.Lock()
        self._session: Session | None = None
        self._tries = 0
        self._closed = False
        self._failure: HostError | None = None

    async def session(self) -> Session:
        tries = self._tries
        async with self._lock:
            if self._closed:
                raise HostError(self._name, "connect", "this host was closed", "Open it again.")
            if self._session is not None and self._session.alive:
                return self._session
            if self._tries != tries and self._failure is not None:
                raise self._failure  # somebody tried while we waited: one try for all
            await self._let_go()
            self._tries += 1
            self._failure = None
            try:
                self._session = await self._connector.open_session()
            except HostError as error:
                self._failure = error
                raise
            return self._session

    async def _let_go(self) -> None:
        if self._session is not None:
            await self._session.aclose()
            self._session = None

    async def aclose(self) -> None:
        async with self._lock:
            self._closed = True
            await self._let_go()


class AgentHost:
    """`Host` over an agent: one session for questions, another for bulk, so that neither waits."""

    def __init__(self, config: HostConfig, connector: Connector) -> None:
        self._name = config.name
        self._config = config
        self._connector = connector
        self._talk = Lane(config.name, connector)
        self._bulk = Lane(config.name, connector)

    @property
    def name(self) -> str:
        return self._name

    async def probe(self) -> Probe:
        fields, _ = await self._ask("probe", "probe")
        asked, before = time.time(), time.perf_counter()
        pong, _ = await self._ask("probe", "ping")
        latency = time.perf_counter() - before
        skew = float(pong["now"]) - (asked + latency / 2)
        return Probe(
            host=self._name,
            os=fields["os"],
            machine=fields["machine"],
            hostname=fields["hostname"],
            user=fields["user"],
            python=fields["python"],
            python_version=fields["python_version"],
            root=fields["root"],
            cpus=fields["cpus"],
            memory_bytes=fields["memory_bytes"],
            disk_free_bytes=fields["disk_free_bytes"],
            gpus=tuple(fields["gpus"]),
            gpu_problem=fields["gpu_problem"],
            boot_id=fields["boot_id"],
            latency_s=latency,
            clock_skew_s=skew,
        )

    async def run(
        self, argv: tuple[str, ...], *, stdin: bytes = b"", timeout_s: float = 60.0, cwd: str | None = None
    ) -> Completed:
        session = await self._talk.session()
        step = f"run {argv[0]}"
        fields, body = await session.ask(step, "run", stdin, argv=list(argv), timeout_s=timeout_s, cwd=cwd)
        cut = int(fields["stdout"])
        return Completed(int(fields["exit_code"]), body[:cut], body[cut:])

    async def put(self, local: Path, remote: str, progress: Progress | None = None) -> Transfer:
        return await transfer.put(self._bulk.session, local, remote, progress)

    async def get(self, remote: str, local: Path, progress: Progress | None = None) -> Transfer:
        return await transfer.get(self._bulk.session, remote, local, progress)

    async def read(self, path: str) -> bytes:
        _, body = await self._ask("read", "read", path=path, offset=0, length=READ_LIMIT + 1)
        if len(body) > READ_LIMIT:
            raise HostError(self._name, "read", f"{path} has more than {READ_LIMIT} bytes", "Get it instead.")
        return body

    async def remove(self, path: str) -> None:
        await self._ask("remove", "remove", path=path)

    async def launch(self, launch: Launch) -> JobStatus:
        return status_of(
            await self._ask(
                f"launch {launch.job_id}",
                "launch",
                job_id=launch.job_id,
                argv=list(launch.argv),
                env=dict(launch.env),
                cwd=launch.cwd,
                now=launch.now,
                resumable=launch.resumable,
                min_free_bytes=self._config.min_free_bytes,
                slots=self._config.slots,
                slurm=asdict(self._config.slurm) if self._config.slurm else None,
            )
        )

    async def status(self, job_id: str) -> JobStatus:
        return status_of(await self._ask(f"status of {job_id}", "status", job_id=job_id))

    async def jobs(self) -> list[JobStatus]:
        _, body = await self._ask("list jobs", "jobs")
        return [job_status(fields) for fields in json.loads(body)]

    async def follow(self, job_id: str, stream: Stream = "events", offset: int = 0) -> AsyncIterator[Chunk]:
        patience = Patience()
        while True:
            try:
                session = await self._talk.session()
                patience.met()
                fields, data = await session.ask(
                    f"follow {job_id}",
                    "follow",
                    job_id=job_id,
                    stream=stream,
                    offset=offset,
                    wait_s=LONG_POLL_S,
                )
            except LinkLost as error:
                await patience.pause(error)
                continue
            patience.answered()
            if data:
                yield Chunk(offset, data)
                offset += len(data)
            if fields["end"]:
                return

    async def wait(self, job_id: str) -> JobStatus:
        patience = Patience()
        while True:
            status = await self._wait(job_id, None, patience)
            if status.ended:
                return status

    async def news(self, seen: JobStatus) -> JobStatus:
        patience = Patience()
        patience.met()  # it told what was seen
        return await self._wait(seen.job_id, [seen.state, seen.position, seen.message], patience)

    async def _wait(self, job_id: str, seen: list[object] | None, patience: Patience) -> JobStatus:
        """One long poll, begun again for as long as the link is away."""
        arguments = {"job_id": job_id, "wait_s": LONG_POLL_S, "seen": seen}
        while True:
            try:
                session = await self._talk.session()
                patience.met()
                answer = await session.ask(f"wait for {job_id}", "wait", **arguments)
            except LinkLost as error:
                await patience.pause(error)
                continue
            patience.answered()
            return status_of(answer)

    async def move(self, job_id: str, to: int) -> JobStatus:
        return status_of(await self._ask(f"move {job_id}", "move", job_id=job_id, to=to))

    async def cancel(self, job_id: str, grace_s: float = 30.0) -> JobStatus:
        return status_of(await self._ask(f"cancel {job_id}", "cancel", job_id=job_id, grace_s=grace_s))

    async def gpus(self, interval_s: float = 1.0) -> AsyncIterator[list[Reading]]:
        """Fresh readings from a reader task; where none comes in time, the last ones with their age."""
        fresh: asyncio.Queue[list[Reading] | HostError] = asyncio.Queue()
        reader = asyncio.create_task(self._read_gpus(interval_s, fresh), name=f"{self._name} readings")
        last: list[Reading] = []
        try:
            while True:
                try:
                    async with asyncio.timeout(2 * interval_s + 1.0 if last else None):
                        came = await fresh.get()
                except TimeoutError:
                    yield [replace(reading, stale_s=time.time() - reading.at) for reading in last]
                    continue
                if isinstance(came, HostError):
                    raise came
                last = came
                yield last
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader

    async def gpu_details(self) -> list[GpuDetail]:
        _, body = await self._ask("ask for GPU details", "gpu_details")
        return details_of(json.loads(body))

    async def _read_gpus(self, interval_s: float, fresh: asyncio.Queue[list[Reading] | HostError]) -> None:
        patience = Patience()
        while True:
            try:
                session = await self._talk.session()
                patience.met()
                async for fields in session.stream("watch GPUs", "gpus", interval_s=interval_s):
                    patience.answered()
                    fresh.put_nowait(readings_of(self._name, fields, time.time()))
            except LinkLost as error:
                try:
                    await patience.pause(error)
                except LinkLost as gone:
                    return fresh.put_nowait(gone)
            except HostError as error:
                return fresh.put_nowait(error)

    async def forward(self, port: int) -> int:
        await self._talk.session()
        return await self._connector.forward(port)

    async def aclose(self) -> None:
        await self._talk.aclose()
        await self._bulk.aclose()
        await self._connector.aclose()

    async def _ask(self, step: str, op: str, /, **arguments: object) -> Frame:
        """One question that may be asked twice: every one of the agent's but `run` may."""
        session = await self._talk.session()
        try:
            return await session.ask(step, op, **arguments)
        except LinkLost:
            session = await self._talk.session()
            return await session.ask(step, op, **arguments)


class Patience:
    """Pauses that grow while a host is away. A host that was never reached is an error at once."""

    def __init__(self) -> None:
        self._met = False
        self._next = FIRST_PAUSE_S

    def met(self) -> None:
        self._met = True

    def answered(self) -> None:
        self._next = FIRST_PAUSE_S

    async def pause(self, error: LinkLost) -> None:
        if not self._met:
            raise error
        await asyncio.sleep(self._next)
        self._next = min(LAST_PAUSE_S, self._next * 2)


def status_of(frame: Frame) -> JobStatus:
    return job_status(frame[0]["status"])


def job_status(fields: Mapping[str, object] | Fields) -> JobStatus:
    names = JobStatus.__slots__
    return JobStatus(**{name: fields[name] for name in names})  # type: ignore[arg-type]
