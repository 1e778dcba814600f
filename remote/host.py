"""What a host is to the rest of the program: one protocol, and the plain records it speaks in.

A host runs commands and jobs, keeps files, and has readings of its processors. Three rules hold for
every kind of host:

- A job belongs to the host, not to the connection. It is named by an id that the caller chose, so
  launching twice starts it once, and whoever comes later can follow it from any byte.
- Paths on a host are strings. A relative one lies under the host's root folder; `~` is the home there.
- Commands are argument vectors, never shell strings.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

JobState = Literal["queued", "starting", "running", "stopping", "done", "failed", "cancelled", "lost"]
Stream = Literal["events", "stdout"]
Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all) while a file or tree is copied."""

ENDED: frozenset[JobState] = frozenset({"done", "failed", "cancelled", "lost"})
CPU_INDEX = -1
"""The `Reading.index` of a host's processor and memory, given where there is no GPU."""


@dataclass(frozen=True, slots=True)
class Slurm:
    """What a cluster is asked for each job. gpus: of one node. time: as sbatch has it ("4:00:00"); empty values
    are left to the cluster. lines: put into the batch script as they are, `#SBATCH ...` ones first."""

    partition: str = ""
    account: str = ""
    gpus: int = 0
    time: str = ""
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HostConfig:
    """How to reach a host and where our things lie on it.

    name: what the user calls it. kind: `local` needs no more than a root. address: a host name, an
    address, or an alias of `~/.ssh/config`. port, user: None leaves them to `~/.ssh/config`.
    key: a private key file; None means the agent and the usual files. root: the folder for jobs and
    files there. python: the interpreter that runs the agent and, by `Probe.python`, jobs.
    known_hosts: a file of known keys beside those that `ssh` itself knows; None is `~/.ssh/known_hosts`.
    accept_new: append the key of a host never seen to that file (a changed key is refused always).
    ssh_config: None is `~/.ssh/config`. withheld: environment variables of this process, such as keys, that
    the agent and the jobs of a local host must not inherit. slots: how many jobs of the queue run at once;
    None is one for each GPU, and one where there is none. min_free_bytes: what must be free on its disk for a
    launch; below it a running job is warned of, below half of it one that is `resumable` is asked to save and
    end. slurm: jobs are handed to Slurm, with a root folder that its nodes share, instead of our queue.
    """

    name: str
    kind: Literal["local", "ssh"] = "local"
    address: str = ""
    port: int | None = None
    user: str | None = None
    key: Path | None = None
    root: str = "~/.hafs"
    python: str = ""
    known_hosts: Path | None = None
    accept_new: bool = False
    ssh_config: Path | None = None
    connect_timeout_s: float = 10.0
    withheld: tuple[str, ...] = ()
    slots: int | None = None
    min_free_bytes: int = 0
    slurm: Slurm | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """What a host says about itself. Sizes in bytes; times in seconds."""

    host: str
    os: str  # linux, darwin, windows
    machine: str  # x86_64, arm64, AMD64
    hostname: str
    user: str
    python: str  # absolute path of the interpreter
    python_version: str  # "3.11.7"
    root: str  # absolute
    cpus: int
    memory_bytes: int | None
    disk_free_bytes: int
    gpus: tuple[str, ...]  # names, in the order of their indexes
    gpu_problem: str  # why there are none, in nvidia-smi's words; "" where there are some
    boot_id: str
    latency_s: float  # of one message there and back
    clock_skew_s: float  # the host's clock minus ours


@dataclass(frozen=True, slots=True)
class Completed:
    """The end of a short command. exit_code is negative (the signal) where a signal ended it."""

    exit_code: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True)
class Launch:
    """A job to start. job_id: letters, digits, `.`, `_`, `-`, at most 100. cwd None: the job's folder.

    The job finds in its environment HAFS_JOB_ID, HAFS_JOB_DIR, HAFS_EVENTS (the file to which it appends
    its events) and HAFS_STOP_FILE (it appears when the job is asked to stop; on Windows that and not a
    signal is how it is asked). It waits in the host's queue for a slot, and sees the GPUs of that slot only;
    `now` starts it beside the queue. resumable: asked to end, it saves, and a new job can go on from there.
    """

    job_id: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    now: bool = False
    resumable: bool = False


@dataclass(frozen=True, slots=True)
class JobStatus:
    """What the host says about a job now. Times are seconds since the epoch by the host's clock.

    exit_code is negative (the signal) where a signal ended it, None while it runs or where nobody saw
    the end. message says why, where a job failed to start or is lost, and warns of a disk that is nearly
    full. position: its place in the queue, 1 for the one that starts next; None where it does not wait.
    """

    job_id: str
    state: JobState
    pid: int | None
    exit_code: int | None
    created_at: float | None
    started_at: float | None
    ended_at: float | None
    heartbeat_at: float | None
    job_dir: str
    log_path: str
    events_path: str
    position: int | None
    message: str

    @property
    def ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes of a job's stream and where they begin. Store `end` with what you made of them."""

    offset: int
    data: bytes

    @property
    def end(self) -> int:
        return self.offset + len(self.data)


@dataclass(frozen=True, slots=True)
class Reading:
    """One GPU (or, with index -1, the processor and memory of a host without any) at one moment.

    None is what the device does not tell. at: seconds since the epoch by our clock, when it came in.
    stale_s: 0 for a fresh one; while the link is down the last reading is given again with its age.
    """

    host: str
    index: int
    name: str
    utilization: float | None  # percent, 0 to 100
    memory_used_mib: float | None
    memory_total_mib: float | None
    temperature_c: float | None
    power_w: float | None
    at: float
    stale_s: float = 0.0


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that computes on a GPU. memory_mib is None where the driver does not tell (Windows, MIG)."""

    pid: int
    name: str
    memory_mib: float | None


@dataclass(frozen=True, slots=True)
class GpuDetail:
    """What a GPU tells when it is asked. None is what it does not tell.

    throttled: why its clocks are held back now, in words. ecc_errors: uncorrected ones since the driver was
    loaded. mig: its MIG devices, as `nvidia-smi -L` names them.
    """

    index: int
    uuid: str
    power_limit_w: float | None
    clock_mhz: float | None
    fan_percent: float | None
    throttled: tuple[str, ...]
    ecc_errors: float | None
    mig: tuple[str, ...]
    processes: tuple[GpuProcess, ...]


@dataclass(frozen=True, slots=True)
class Transfer:
    """A file or tree that is now the same on both sides, as its SHA-256 says.

    path: absolute, on the side to which it was copied. sha256: of the file, or of the sorted lines
    `sha256  relative/path` of a tree. moved: bytes that crossed the link; 0 when all was there already.
    """

    path: str
    files: int
    size: int
    sha256: str
    moved: int


class Host(Protocol):
    """One host. Every method raises `HostError`; `LinkLost` where trying again may help."""

    @property
    def name(self) -> str: ...

    async def probe(self) -> Probe: ...

    async def run(
        self, argv: tuple[str, ...], *, stdin: bytes = b"", timeout_s: float = 60.0, cwd: str | None = None
    ) -> Completed:
        """Run a short command and gather its output (at most 8 MiB of each stream are kept)."""
        ...

    async def put(self, local: Path, remote: str, progress: Progress | None = None) -> Transfer:
        """Copy a file or a folder's files to the host; resumes, verifies, skips what is there."""
        ...

    async def get(self, remote: str, local: Path, progress: Progress | None = None) -> Transfer:
        """Copy a file or a folder's files from the host; resumes, verifies, skips what is here."""
        ...

    async def read(self, path: str) -> bytes:
        """A small file's bytes (at most 16 MiB)."""
        ...

    async def remove(self, path: str) -> None:
        """Remove a file or a folder under the root. Nothing there is no error."""
        ...

    async def launch(self, launch: Launch) -> JobStatus:
        """Start a job, once: a second launch of the same id gives the status of the first."""
        ...

    async def status(self, job_id: str) -> JobStatus:
        """The job's state now. Raises `NoSuchJob`."""
        ...

    async def jobs(self) -> list[JobStatus]:
        """Every job that has a folder on this host, oldest first."""
        ...

    def follow(self, job_id: str, stream: Stream = "events", offset: int = 0) -> AsyncIterator[Chunk]:
        """The stream's bytes from `offset` on, each once and in order, until the job has ended and all
        is read. Reconnects by itself as long as it takes; raises what no waiting mends."""
        ...

    async def wait(self, job_id: str) -> JobStatus:
        """The status once the job has ended. Reconnects by itself like `follow`."""
        ...

    async def news(self, seen: JobStatus) -> JobStatus:
        """The status once its state, position or message is not as `seen`, or after some 10 s as it is.
        Reconnects by itself like `follow`."""
        ...

    async def move(self, job_id: str, to: int) -> JobStatus:
        """Give a waiting job another place in the queue, from 1. Raises `Refused` ("not waiting") where it
        has left the queue."""
        ...

    async def cancel(self, job_id: str, grace_s: float = 30.0) -> JobStatus:
        """Ask the job to stop, and have its whole tree ended after `grace_s`. Does not wait for that."""
        ...

    def gpus(self, interval_s: float = 1.0) -> AsyncIterator[list[Reading]]:
        """A list of readings every `interval_s`, without end; stale ones while the link is down."""
        ...

    async def gpu_details(self) -> list[GpuDetail]:
        """Limits, clocks, faults and processes of each GPU now; empty where nvidia-smi shows none."""
        ...

    async def forward(self, port: int) -> int:
        """A local port that leads to `port` of the host's loopback, until `aclose`."""
        ...

    async def aclose(self) -> None:
        """Let go of the host. Jobs there go on."""
        ...
