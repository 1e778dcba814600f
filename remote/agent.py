"""The one file that runs on a host. Standard library only, Python 3.9 or newer, Linux, macOS, Windows.

Two roles:

`agent.py serve` talks with the control side for as long as the link holds. A frame, either way, is one
line of JSON and then as many raw bytes as its `n` says: `{"id": 7, "op": "read", ...}\\n<bytes>`. The
first request is `hello`; the answer begins with a line that holds the caller's nonce, so that whatever a
login shell printed before can be told from it. End of input ends the session and what `run` started.

`agent.py supervise JOBDIR` starts one job and stays with it. No session owns it: it has a session of
its own, its output goes to files, and on Linux it adopts the job's orphans, so that ending the job ends
all of it and nothing else. The folder tells everything about the job:

    spec.json    what was asked for          state.json   pids with start times, boot id, heartbeat
    stdout.log   the job's stdout and stderr exit.json    written once, after the whole tree has ended
    events.jsonl the job's own events        stop         exists once the job is asked to stop
    reserve      room for exit.json on a disk that the job has filled
    slot.json    which slot of the queue, and so which GPUs, it was given
    supervisor/  made by the supervisor that won: however often a job is launched, one starts it

Jobs wait in `<root>/queue`. There is no daemon: a supervisor that ends starts the next job, and so does
every session that begins.

A process is known by boot id, pid and start time together, never by its pid alone.
"""

# Python 3.9 runs this: Optional, not `X | None`, where a name is evaluated.
# ruff: noqa: UP035, UP045, RET502, RET503, SIM105, S607

from __future__ import annotations

import contextlib
import ctypes
import errno
import getpass
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any, BinaryIO, Callable, Optional

PROTOCOL = 1
BLOCK = 1024 * 1024
OUTPUT_LIMIT = 8 * 1024 * 1024
HEARTBEAT_S = 5.0
ORPHAN_GRACE_S = 5.0
UNKILLABLE_S = 30.0
DISK_LOOK_S = 5.0
PAUSE_GRACE_S = 600.0
START_LIMIT_S = 15.0
RESERVE = 16 * 1024
SMI_FIELDS = "count,index,name,utilization.gpu,memory.used,memory.total,temperature.gpu,power.draw"
STATE_KEYS = ("state", "pid", "started_at", "heartbeat_at", "message")
DETAIL_FIELDS = ["index", "uuid", "power.limit", "clocks.sm", "fan.speed", "clocks_throttle_reasons.active"]
DETAIL_FIELDS += ["ecc.errors.uncorrected.volatile.total"]
APP_FIELDS = ["gpu_uuid", "pid", "used_memory", "process_name"]
ENDED = ("done", "failed", "cancelled", "lost")
JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
UNFINISHED = re.compile(r"\.[0-9a-f]{16}\.part$|^\.writing-")

Json = dict[str, Any]


class Refused(Exception):
    """A request that cannot be met. `kind` is for the program, the message for the person."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


# ---------------------------------------------------------------- files


def read_json(path: str) -> Optional[Json]:
    """The object in a file, None where there is no such file."""
    try:
        with open(path, encoding="utf-8") as file:
            loaded: Json = json.load(file)
            return loaded
    except FileNotFoundError:
        return None


def replace(source: str, target: str) -> None:
    """os.replace, tried again where Windows refuses because somebody is just reading the target."""
    for attempt in range(50):
        try:
            return os.replace(source, target)
        except PermissionError:
            if os.name != "nt" or attempt == 49:
                raise
            time.sleep(0.02)


def write_json(path: str, value: Json) -> None:
    """Readers see the old object or the new one, never a part."""
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".writing-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(value, file)
        replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def file_sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1024 * 1024), b""):
            digest.update(block)
    return digest.hexdigest()


# ---------------------------------------------------------------- processes


def boot_id() -> str:
    """What stays the same until the host restarts; "" where the system does not tell."""
    try:
        if sys.platform == "linux":
            with open("/proc/sys/kernel/random/boot_id") as file:
                return file.read().strip()
        if sys.platform == "darwin":
            return subprocess.check_output(
                ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"], text=True
            ).strip()
        if sys.platform == "win32":
            import winreg

            memory = r"SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management\PrefetchParameters"
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, memory) as key:
                return str(winreg.QueryValueEx(key, "BootId")[0])
    except (OSError, subprocess.SubprocessError):
        pass  # start times alone must do
    return ""


def linux_stat(pid: int) -> Optional[list[str]]:
    """Fields of /proc/PID/stat from the state on: [0] state, [1] parent, [3] session, [19] start ticks."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].decode().split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def start_time(pid: int) -> Optional[str]:
    """When a process started, in the system's own unit; None when it runs no more (or is a zombie)."""
    if sys.platform == "linux":
        fields = linux_stat(pid)
        return None if fields is None or fields[0] in "ZX" else fields[19]
    if sys.platform == "win32":
        kernel = ctypes.windll.kernel32
        kernel.OpenProcess.restype = ctypes.c_void_p
        handle = ctypes.c_void_p(kernel.OpenProcess(0x1000, False, pid))  # QUERY_LIMITED_INFORMATION
        if not handle:
            return None
        times = [ctypes.c_ulonglong() for _ in range(4)]
        running = ctypes.c_ulong()
        kernel.GetProcessTimes(handle, *[ctypes.byref(value) for value in times])
        kernel.GetExitCodeProcess(handle, ctypes.byref(running))
        kernel.CloseHandle(handle)
        return str(times[0].value) if running.value == 259 else None  # STILL_ACTIVE
    listed = subprocess.run(
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split(None, 1)
    return None if not listed or listed[0].startswith("Z") else listed[1].strip()


def same_process(pid: Optional[int], started: Optional[str]) -> bool:
    return pid is not None and started is not None and start_time(pid) == started


def parents() -> dict[int, tuple[int, int]]:
    """(parent, session or group) of every process that runs, on Linux and macOS."""
    found: dict[int, tuple[int, int]] = {}
    if sys.platform == "linux":
        for name in os.listdir("/proc"):
            fields = linux_stat(int(name)) if name.isdigit() else None
            if fields is not None and fields[0] not in "ZX":
                found[int(name)] = (int(fields[1]), int(fields[3]))
    elif os.name == "posix":
        listed = subprocess.run(
            ["/bin/ps", "-axo", "pid=,ppid=,pgid=,stat="], capture_output=True, text=True, check=False
        ).stdout
        for line in listed.splitlines():
            pid, parent, group, state = line.split()[:4]
            if not state.startswith("Z"):
                found[int(pid)] = (int(parent), int(group))
    return found


def tree_of(top: int, session: Optional[int] = None) -> list[int]:
    """Processes below `top`, and those of a session with what is below them."""
    family = parents()
    members = {pid for pid, (_, theirs) in family.items() if theirs == session} | {top}
    grew = True
    while grew:
        new = {pid for pid, (parent, _) in family.items() if parent in members} - members
        members |= new
        grew = bool(new)
    return sorted(members - {top})


def job_tree(child: int) -> list[int]:
    """A job's processes, as its supervisor sees them. On Linux all of them are below us, orphans too."""
    return tree_of(os.getpid(), None if sys.platform == "linux" else child)


def marked(job_dir: str) -> list[int]:
    """Processes whose environment names this job, whoever their parent is now. Only Linux tells."""
    found = []
    mark = b"HAFS_JOB_DIR=" + os.fsencode(job_dir)
    for name in os.listdir("/proc") if sys.platform == "linux" else []:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if mark in file.read().split(b"\0"):
                        found.append(int(name))
            except OSError:
                continue  # gone, or another user's
    return found


def send_signal(members: list[int], number: int) -> bool:
    """To each that still runs. False when there was nobody."""
    for pid in members:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
    return bool(members)


# ---------------------------------------------------------------- the queue

IDLE: Json = {"pid": None, "started_at": None}  # the state of a job that never started


@contextlib.contextmanager
def file_lock(path: str) -> Iterator[None]:
    """One holder at a time among all processes of this host; a holder that dies lets go."""
    with open(path, "ab") as file:
        if sys.platform == "win32":
            import msvcrt

            while True:
                try:
                    file.seek(0)
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
                    break
                except OSError:
                    continue  # it gives up after 10 s each
            try:
                yield
            finally:
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class Queue:
    """`<root>/queue/queue.json`: which jobs wait, in what order, and which slot each started one has.

    Changed only under the lock, and written before a supervisor is started: a start that broke off in
    between is made good by the next look. `slots` jobs run at once, each with its share of the GPUs.
    """

    def __init__(self, root: str) -> None:
        self.folder = os.path.join(root, "queue")
        self.jobs = os.path.join(root, "jobs")
        self.file = os.path.join(self.folder, "queue.json")

    def read(self) -> Json:
        return read_json(self.file) or {"slots": 1, "gpus": 0, "waiting": [], "started": {}}

    @contextlib.contextmanager
    def changing(self) -> Iterator[Json]:
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        with file_lock(os.path.join(self.folder, "lock")):
            queue = self.read()
            before = json.dumps(queue)
            yield queue
            if json.dumps(queue) != before:
                write_json(self.file, queue)

    def enter(self, job_id: str, slots: Optional[int], gpus: int) -> None:
        """Put a job at the end, once, and start it if there is room."""
        with self.changing() as queue:
            queue.update(slots=slots or max(1, gpus), gpus=gpus)
            begun = os.path.exists(os.path.join(self.jobs, job_id, "supervisor"))
            if not (begun or job_id in queue["started"] or job_id in queue["waiting"]):
                queue["waiting"].append(job_id)
        self.advance()

    def advance(self) -> None:
        """Free the slots of jobs that have ended, and start the next ones."""
        if not os.path.exists(self.file):
            return
        with self.changing() as queue:
            started = queue["started"] = {
                job_id: slot for job_id, slot in queue["started"].items() if self.holds_slot(job_id)
            }
            free = [slot for slot in range(queue["slots"]) if slot not in started.values()]
            while free and queue["waiting"]:
                job_id = queue["waiting"].pop(0)
                job_dir = os.path.join(self.jobs, job_id)
                if os.path.isdir(job_dir) and not os.path.exists(os.path.join(job_dir, "exit.json")):
                    started[job_id] = slot = free.pop(0)
                    given = {"slot": slot, "gpus": self.share(queue, slot), "at": time.time()}
                    write_json(os.path.join(job_dir, "slot.json"), given)
            folders = [os.path.join(self.jobs, job_id) for job_id in started]
        for job_dir in folders:
            if not os.path.isdir(os.path.join(job_dir, "supervisor")):
                start_supervisor(job_dir)

    def share(self, queue: Json, slot: int) -> list[int]:
        """GPUs are dealt out to slots; where there are more slots than GPUs, some share one."""
        slots, gpus = queue["slots"], queue["gpus"]
        return list(range(slot, gpus, slots)) if slots <= gpus else [slot % gpus] if gpus else []

    def holds_slot(self, job_id: str) -> bool:
        """Until it has ended; a lost one for as long as its process still runs."""
        job_dir = os.path.join(self.jobs, job_id)
        if not os.path.isdir(job_dir) or os.path.exists(os.path.join(job_dir, "exit.json")):
            return False
        state = read_json(os.path.join(job_dir, "state.json"))
        if state is None:
            given = read_json(os.path.join(job_dir, "slot.json"))
            return given is None or time.time() - given["at"] < START_LIMIT_S
        if state["boot_id"] != boot_id():
            return False
        return same_process(state["supervisor_pid"], state["supervisor_start"]) or same_process(
            state["pid"], state["start"]
        )

    def position(self, job_id: str) -> Optional[int]:
        """1 for the one that starts next, None for one that does not wait."""
        waiting = self.read()["waiting"]
        return waiting.index(job_id) + 1 if job_id in waiting else None

    def move(self, job_id: str, to: int) -> None:
        with self.changing() as queue:
            waiting = queue["waiting"]
            if job_id not in waiting:
                raise Refused("not waiting", f"job {job_id} does not wait any more: it cannot be moved")
            waiting.remove(job_id)
            waiting.insert(max(0, to - 1), job_id)

    def leave(self, job_id: str) -> bool:
        """Cancel a job that waits. False when it does not wait any more."""
        with self.changing() as queue:
            if job_id not in queue["waiting"]:
                return False
            message = "cancelled while it waited in the queue"
            write_json(
                os.path.join(self.jobs, job_id, "exit.json"), end_record(IDLE, "cancelled", None, message)
            )
            queue["waiting"].remove(job_id)
            return True


# ---------------------------------------------------------------- Slurm


class Slurm:
    """A cluster's queue in place of ours: `sbatch` starts the supervisor, the folder stays the truth.

    The folder lies on a file system that the nodes share. `slurm.json` holds Slurm's number of the job.
    Accounting may be off, so how a job ended is told by its own records and never by `sacct`. Plain
    `squeue --format` is asked, which versions without the JSON plugin have too.
    """

    LOOK_S = 3.0
    GRACE_S = 50.0  # of the 60 s between Slurm's signal and the time limit

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.looked = float("-inf")
        self.listed: Optional[dict[str, tuple[str, str]]] = None

    def submit(self, job_dir: str, spec: Json) -> None:
        """Once: a second batch job of the same folder would find its supervisor there, and end."""
        with file_lock(os.path.join(job_dir, "submitting")):
            if os.path.exists(os.path.join(job_dir, "slurm.json")):
                return
            script = os.path.join(job_dir, "batch.sh")
            with open(script, "w", encoding="utf-8") as file:
                file.write(self.script(job_dir, spec))
            number = self.command("sbatch", "--parsable", script).split(";")[0].strip()
            write_json(os.path.join(job_dir, "slurm.json"), {"number": number, "at": time.time()})
        self.looked = float("-inf")

    def script(self, job_dir: str, spec: Json) -> str:
        wanted = spec["slurm"]
        options = {
            "job-name": spec["job_id"],
            "chdir": job_dir,
            "output": os.path.join(job_dir, "supervisor.log").replace("%", "%%"),
            "open-mode": "append",
            "signal": "B:TERM@60",  # to the supervisor alone, in time for a checkpoint
            "partition": wanted["partition"],
            "account": wanted["account"],
            "time": wanted["time"],
            "gres": f"gpu:{wanted['gpus']}" if wanted["gpus"] else "",
        }
        lines = [f"#SBATCH --{name}={shlex.quote(value)}" for name, value in options.items() if value]
        lines += ["#SBATCH --no-requeue", *wanted["lines"]]
        return "\n".join(["#!/bin/sh", *lines, "exec " + shlex.join(supervisor_argv(job_dir)), ""])

    def command(self, *argv: str) -> str:
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Refused("slurm", f"{argv[0]}: {error}") from error
        if done.returncode != 0:
            raise Refused("slurm", f"{argv[0]}: {done.stderr.strip() or done.returncode}")
        return done.stdout

    def jobs(self) -> Optional[dict[str, tuple[str, str]]]:
        """(state, reason) of each job of ours that Slurm still lists; None where it does not answer now."""
        with self.lock:
            if time.monotonic() - self.looked > self.LOOK_S:
                self.looked = time.monotonic()
                try:
                    told = self.command(
                        "squeue", "--noheader", "--format=%i|%T|%r", f"--user={getpass.getuser()}"
                    )
                    rows = [line.strip().split("|", 2) for line in told.splitlines()]
                    self.listed = {row[0]: (row[1], row[2]) for row in rows if len(row) == 3}
                except Refused:
                    self.listed = None
            return self.listed

    def describe(self, job_dir: str, state: Optional[Json]) -> Json:
        """What Slurm says of a job whose exit.json is not there: fields of its status."""
        submitted = read_json(os.path.join(job_dir, "slurm.json"))
        if submitted is None:
            return {"message": "not handed to Slurm yet"}
        if state is not None and time.time() - state["heartbeat_at"] < 6 * HEARTBEAT_S:
            return {}
        listed = self.jobs()
        if listed is None:
            return {"message": "Slurm does not answer"}
        if submitted["number"] in listed:
            now, reason = listed[submitted["number"]]
            waits = now in ("PENDING", "REQUEUED", "SUSPENDED")
            return (
                {"state": "queued", "message": f"Slurm: {now}, {reason}"} if waits and state is None else {}
            )
        if state is None and time.time() - submitted["at"] < START_LIMIT_S:
            return {}
        return {"state": "lost", "message": f"Slurm no longer knows its job {submitted['number']}"}

    def cancel(self, job_dir: str, grace_s: float) -> None:
        """The supervisor is asked first, by the stop file; a job that has none yet is taken out of Slurm."""
        write_json(os.path.join(job_dir, "stop"), {"grace_s": grace_s, "asked_at": time.time()})
        supervisor = os.path.join(job_dir, "supervisor")
        submitted = read_json(os.path.join(job_dir, "slurm.json"))
        if submitted is None or os.path.exists(supervisor):
            return
        self.command("scancel", submitted["number"])
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline and not os.path.exists(supervisor):
            self.looked = float("-inf")
            now = (self.jobs() or {}).get(submitted["number"])
            if now is None or now[0] not in ("PENDING", "RUNNING", "CONFIGURING"):
                try:
                    os.mkdir(supervisor)  # none will start now
                except FileExistsError:
                    return
                message = "cancelled while it waited for Slurm"
                return write_json(
                    os.path.join(job_dir, "exit.json"), end_record(IDLE, "cancelled", None, message)
                )
            time.sleep(0.2)

    def end_overdue(self, job_dir: str) -> None:
        """A supervisor that was asked and does not end its job: Slurm does."""
        stop = read_json(os.path.join(job_dir, "stop"))
        submitted = read_json(os.path.join(job_dir, "slurm.json"))
        if stop and submitted and time.time() > stop["asked_at"] + stop["grace_s"] + UNKILLABLE_S + 30:
            self.command("scancel", "--full", submitted["number"])


# ---------------------------------------------------------------- the supervisor


def supervise(job_dir: str) -> None:
    """Bring one job to its end, then start those that wait for its place."""
    try:
        os.mkdir(os.path.join(job_dir, "supervisor"))
    except FileExistsError:
        return
    run_job(job_dir)
    queue = Queue(os.path.dirname(os.path.dirname(job_dir)))
    while True:
        try:
            return queue.advance()
        except OSError:  # a full disk, say: those who wait have nobody else
            time.sleep(HEARTBEAT_S)


def run_job(job_dir: str) -> None:
    """Start the job of a folder, stay until its whole tree has ended, and write exit.json."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans become ours
    told_to_end: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: told_to_end.append(number))
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    spec = read_json(os.path.join(job_dir, "spec.json")) or {}
    state: Json = {
        "state": "starting",
        "supervisor_pid": os.getpid(),
        "supervisor_start": start_time(os.getpid()),
        "boot_id": boot_id(),
        "pid": None,
        "start": None,
        "message": "",
        "started_at": None,
        "heartbeat_at": time.time(),
    }
    try_to_write(os.path.join(job_dir, "state.json"), state)
    try_to_write(os.path.join(job_dir, "reserve"), {"kept": " " * RESERVE})
    if os.path.exists(os.path.join(job_dir, "stop")):
        return conclude(job_dir, state, "cancelled", None, "cancelled before it started")
    try:
        child = start_job(job_dir, spec)
    except (OSError, ValueError) as error:
        return conclude(job_dir, state, "failed", 127, f"could not be started: {error}")
    if sys.platform == "win32":
        with contextlib.suppress(OSError):  # then taskkill must do
            job_objects[child.pid] = JobObject(child)
    state.update(state="running", pid=child.pid, start=start_time(child.pid), started_at=time.time())
    exit_code, was_asked, message = watch(child, job_dir, state, told_to_end)
    final = "cancelled" if was_asked else "done" if exit_code == 0 else "failed"
    conclude(job_dir, state, final, exit_code, message)


def start_job(job_dir: str, spec: Json) -> subprocess.Popen[bytes]:
    environment = dict(os.environ)
    slot = read_json(os.path.join(job_dir, "slot.json"))
    if slot is not None and slot["gpus"]:
        # nvidia-smi counts by bus, CUDA by speed unless it is told so.
        numbers = ",".join(str(index) for index in slot["gpus"])
        environment.update(CUDA_DEVICE_ORDER="PCI_BUS_ID", CUDA_VISIBLE_DEVICES=numbers)
    environment.update(spec["env"])
    environment.update(
        PYTHONUNBUFFERED="1",
        HAFS_JOB_ID=spec["job_id"],
        HAFS_JOB_DIR=job_dir,
        HAFS_EVENTS=os.path.join(job_dir, "events.jsonl"),
        HAFS_STOP_FILE=os.path.join(job_dir, "stop"),
    )
    with open(os.path.join(job_dir, "stdout.log"), "ab") as log:
        return subprocess.Popen(
            spec["argv"],
            cwd=spec["cwd"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def watch(
    child: subprocess.Popen[bytes], job_dir: str, state: Json, told_to_end: list[int]
) -> tuple[Optional[int], bool, str]:
    """Wait for the end of the tree: (exit code, was it asked to stop, message)."""
    exit_code: Optional[int] = None
    asked_at: Optional[float] = None  # when the tree was asked to end, by a stop file or by its own end
    was_asked = paused = False
    message = ""
    pause = 0.01
    beat = looked = float("-inf")
    spec = read_json(os.path.join(job_dir, "spec.json")) or {}
    told_grace = Slurm.GRACE_S if spec.get("slurm") else 10.0
    while True:
        exit_code = reap(child) if exit_code is None else exit_code
        stop = read_json(os.path.join(job_dir, "stop")) or ({"grace_s": told_grace} if told_to_end else None)
        grace = float(stop["grace_s"]) if stop else PAUSE_GRACE_S if paused else ORPHAN_GRACE_S
        if stop and not was_asked and exit_code is None:
            was_asked, asked_at, beat = True, time.monotonic(), float("-inf")
            state["state"] = "stopping"
            message = "its supervisor was told to end" if told_to_end else ""
            if told_to_end and spec.get("slurm"):
                message = "Slurm told it to end: its time limit, a preemption, or scancel"
            ask(child)
        if time.monotonic() - looked >= DISK_LOOK_S and not was_asked:
            looked = time.monotonic()
            warning, pause_it = disk_warning(job_dir, spec)
            if warning != state["message"]:
                state["message"], beat = warning, float("-inf")
            if pause_it and exit_code is None:
                was_asked, asked_at = True, time.monotonic()
                paused, grace, state["state"] = True, PAUSE_GRACE_S, "stopping"
                message = f"paused: {warning}; free some, then resume it"
                ask(child)
        if exit_code is not None:
            if not members_left(child):
                return exit_code, was_asked, message
            if asked_at is None:
                asked_at = time.monotonic()
                ask(child)
        if asked_at is not None:
            overdue = time.monotonic() - asked_at - grace
            if overdue >= 0:
                kill(child)
            if overdue > UNKILLABLE_S:
                return exit_code, was_asked, f"processes that cannot be killed: {members_left(child)}"
        if time.monotonic() - beat >= HEARTBEAT_S:
            beat = time.monotonic()
            state["heartbeat_at"] = time.time()
            try_to_write(os.path.join(job_dir, "state.json"), state)
        time.sleep(pause)
        pause = min(0.2 if asked_at is None else 0.05, pause * 1.3)


def disk_warning(job_dir: str, spec: Json) -> tuple[str, bool]:
    """What is to be said of the room that is left, and whether a job that can be resumed is to save and end:
    at half of what it must have, while there is still room to save."""
    wanted = spec.get("min_free_bytes") or 0
    usage = [shutil.disk_usage(folder).free for folder in {job_dir, spec.get("cwd") or job_dir}]
    free = min(usage)
    if free >= wanted:
        return "", False
    low = f"{free / 2**30:.1f} GiB are free on its disk, less than {wanted / 2**30:.1f}"
    return low, bool(spec.get("resumable")) and free < wanted / 2


def reap(child: subprocess.Popen[bytes]) -> Optional[int]:
    """Collect whoever ended, adopted orphans too. The job's exit code once its first process ended."""
    if sys.platform == "win32":
        return child.poll()
    while child.returncode is None:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return child.poll()
        if pid == 0:
            return None
        if pid == child.pid:
            child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode


def members_left(child: subprocess.Popen[bytes]) -> list[int]:
    """The job's processes that still run, once the ended ones among our children are collected."""
    if sys.platform == "win32":
        ended = child.poll() is not None
        if child.pid in job_objects:
            return [child.pid] * job_objects[child.pid].active()
        return [] if ended else [child.pid]
    try:
        while child.returncode is not None and os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass  # none left to collect
    return job_tree(child.pid)


def ask(child: subprocess.Popen[bytes]) -> None:
    if sys.platform != "win32":  # there the stop file alone asks
        send_signal(job_tree(child.pid), signal.SIGTERM)


def kill(child: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        if child.pid in job_objects:
            return job_objects[child.pid].end()
        subprocess.run(["taskkill", "/T", "/F", "/PID", str(child.pid)], capture_output=True, check=False)
    else:
        send_signal(job_tree(child.pid), signal.SIGKILL)


def try_to_write(path: str, value: Json) -> bool:
    """A full disk must not end a supervisor: the next heartbeat tries again."""
    try:
        write_json(path, value)
    except OSError:
        return False
    return True


def end_record(state: Json, final: str, exit_code: Optional[int], message: str) -> Json:
    return {
        "state": final,
        "exit_code": exit_code,
        "pid": state["pid"],
        "started_at": state["started_at"],
        "ended_at": time.time(),
        "message": message,
    }


def conclude(job_dir: str, state: Json, final: str, exit_code: Optional[int], message: str) -> None:
    record = end_record(state, final, exit_code, message)
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(job_dir, "reserve"))
    while not try_to_write(os.path.join(job_dir, "exit.json"), record):
        time.sleep(HEARTBEAT_S)


# ---------------------------------------------------------------- jobs, as a session sees them


class Jobs:
    """The folders under `<root>/jobs`."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.folder = os.path.join(root, "jobs")
        self.queue = Queue(root)
        self.slurm = Slurm()

    def dir_of(self, job_id: str) -> str:
        if not JOB_ID.match(job_id):
            raise Refused("bad", f"not a job id: {job_id!r}")
        return os.path.join(self.folder, job_id)

    def launch(self, job_id: str, asked: Json, slots: Optional[int], gpus: int) -> Json:
        """Make the folder whole, then in place; only the first one wins, and so does only one supervisor."""
        job_dir = self.dir_of(job_id)
        if not os.path.isdir(job_dir):
            spec = {"job_id": job_id, **asked, "cwd": asked["cwd"] or job_dir, "created_at": time.time()}
            making = tempfile.mkdtemp(dir=self.folder, prefix=".new-")
            try:
                write_json(os.path.join(making, "spec.json"), spec)
                for name in ("events.jsonl", "stdout.log"):
                    open(os.path.join(making, name), "xb").close()
                os.rename(making, job_dir)
            except OSError:
                shutil.rmtree(making)
                if not os.path.isdir(job_dir):  # else somebody else was first
                    raise
        if not os.path.isdir(os.path.join(job_dir, "supervisor")):
            if asked["slurm"]:
                try:
                    self.slurm.submit(job_dir, read_json(os.path.join(job_dir, "spec.json")) or {})
                except Refused:
                    shutil.rmtree(
                        job_dir, ignore_errors=True
                    )  # with mended settings it can be launched again
                    raise
            elif asked["now"]:
                start_supervisor(job_dir)
            else:
                self.queue.enter(job_id, slots, gpus)
        deadline = time.monotonic() + 5.0
        status = self.status(job_id)
        while status["state"] == "starting" and time.monotonic() < deadline:
            time.sleep(0.02)
            status = self.status(job_id)
        return status

    def status(self, job_id: str) -> Json:
        job_dir = self.dir_of(job_id)
        spec = read_json(os.path.join(job_dir, "spec.json"))
        if spec is None:
            raise Refused("no job", f"no job {job_id} in {self.folder}")
        status: Json = {
            "job_id": job_id,
            "state": "starting",
            "pid": None,
            "exit_code": None,
            "created_at": spec["created_at"],
            "started_at": None,
            "ended_at": None,
            "heartbeat_at": None,
            "job_dir": job_dir,
            "log_path": os.path.join(job_dir, "stdout.log"),
            "events_path": os.path.join(job_dir, "events.jsonl"),
            "position": None,
            "message": "",
        }
        state = read_json(os.path.join(job_dir, "state.json"))
        if state is not None:
            status.update({key: state[key] for key in STATE_KEYS if key in state})
        else:
            status["position"] = self.queue.position(job_id)
        lost = ""
        if spec.get("slurm"):
            status.update(self.slurm.describe(job_dir, state))
        elif status["position"]:
            status["state"] = "queued"
        else:
            lost = self.why_lost(job_dir, spec, state)
        # exit.json is looked for after the supervisor: one that is gone has written it before.
        ended = read_json(os.path.join(job_dir, "exit.json"))
        if ended is not None:
            status.update(ended)
        elif lost:
            status.update(state="lost", message=lost)
        return status

    def by_slurm(self, job_id: str) -> bool:
        return bool((read_json(os.path.join(self.dir_of(job_id), "spec.json")) or {}).get("slurm"))

    def why_lost(self, job_dir: str, spec: Json, state: Optional[Json]) -> str:
        if state is None:
            slot = read_json(os.path.join(job_dir, "slot.json"))
            waited = time.time() - (slot["at"] if slot else spec["created_at"])
            return "its supervisor never started" if waited > START_LIMIT_S else ""
        if state["boot_id"] != boot_id():
            return "the host restarted while it ran"
        if same_process(state["supervisor_pid"], state["supervisor_start"]):
            return ""
        if same_process(state["pid"], state["start"]):
            return f"its supervisor is gone; its process {state['pid']} still runs"
        return "its supervisor is gone and wrote no exit code"

    def all(self) -> list[Json]:
        names = [name for name in os.listdir(self.folder) if JOB_ID.match(name)]
        statuses = []
        for name in names:
            try:
                statuses.append(self.status(name))
            except Refused:
                continue  # removed meanwhile
        return sorted(statuses, key=lambda status: (status["created_at"], status["job_id"]))

    def cancel(self, job_id: str, grace_s: float) -> Json:
        status = self.status(job_id)
        if self.by_slurm(job_id):
            if status["state"] not in ENDED:
                self.slurm.cancel(status["job_dir"], grace_s)
                self.slurm.end_overdue(status["job_dir"])
            return self.status(job_id)
        if status["state"] == "queued" and self.queue.leave(job_id):
            return self.status(job_id)
        if status["state"] not in ("done", "failed", "cancelled"):
            write_json(os.path.join(status["job_dir"], "stop"), {"grace_s": grace_s, "asked_at": time.time()})
            state = read_json(os.path.join(status["job_dir"], "state.json"))
            if status["state"] == "lost" and state and same_process(state["pid"], state["start"]):
                self.end_orphan(status["job_dir"], state["pid"], grace_s)
        return self.status(job_id)

    def end_orphan(self, job_dir: str, pid: int, grace_s: float) -> None:
        """End a job whose supervisor was killed: its first process, its session, what is below, and
        whoever carries its mark. Done before the answer: there is no supervisor to leave it to."""
        if sys.platform == "win32":
            subprocess.run(["taskkill", "/T", "/F", "/PID", str(pid)], capture_output=True, check=False)
            return
        started = start_time(pid)

        def members() -> list[int]:
            first = [pid] if same_process(pid, started) else []
            return first + sorted({*tree_of(pid, pid), *marked(job_dir)} - {pid})

        for number, wait_s in ((signal.SIGTERM, grace_s), *[(signal.SIGKILL, 1.0)] * int(UNKILLABLE_S)):
            deadline = time.monotonic() + wait_s
            if not send_signal(members(), number):
                return
            while members() and time.monotonic() < deadline:
                time.sleep(0.1)

    def read_stream(self, job_id: str, stream: str, offset: int, wait_s: float) -> tuple[Json, bytes]:
        """New bytes as soon as there are some; `end` once the job has ended and all is read."""
        status = self.status(job_id)
        path = status["events_path" if stream == "events" else "log_path"]
        exit_path = os.path.join(status["job_dir"], "exit.json")
        deadline = time.monotonic() + wait_s
        ended = status["state"] in ENDED
        while True:
            # The end is looked for before the bytes: what comes after an end that was seen is all there is.
            ended = ended or os.path.exists(exit_path)
            with open(path, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                if size < offset:
                    raise Refused("bad", f"{path} has {size} bytes, fewer than the offset {offset}")
                file.seek(offset)
                data = file.read(BLOCK)
            if data or ended or time.monotonic() >= deadline:
                return {"end": ended and not data}, data
            time.sleep(0.03)


def supervisor_argv(job_dir: str) -> list[str]:
    return [sys.executable, "-I", "-u", "-X", "utf8", os.path.abspath(__file__), "supervise", job_dir]


def start_supervisor(job_dir: str) -> None:
    """A process that outlives this session, its terminal and the connection."""
    argv = supervisor_argv(job_dir)
    with open(os.path.join(job_dir, "supervisor.log"), "ab") as log:
        common: Json = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "cwd": job_dir}
        if sys.platform == "win32":
            return start_outside(argv, job_dir, common)
        process = subprocess.Popen(argv, start_new_session=True, **common)
    threading.Thread(target=process.wait, daemon=True).start()  # so that it leaves no zombie behind


# ---------------------------------------------------------------- Windows

if sys.platform == "win32":

    def start_outside(argv: list[str], job_dir: str, common: Json) -> None:
        """OpenSSH for Windows keeps a session's processes in a job object that ends with it. By trial: step out
        of it, be in none, or have somebody else start the supervisor. How is written into start.json."""
        tried: list[str] = []
        for method in (start_by_breakaway, start_beside_no_job, start_by_cim, start_by_task):
            try:
                method(argv, job_dir, common)
                wait_for_supervisor(job_dir)
            except (OSError, subprocess.SubprocessError) as error:
                tried.append(f"{method.__name__}: {error}")
                continue
            return write_json(
                os.path.join(job_dir, "start.json"), {"method": method.__name__, "tried": tried}
            )
        raise Refused("windows", "no way to start a process that outlives the session: " + "; ".join(tried))

    def wait_for_supervisor(job_dir: str) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while not os.path.isdir(os.path.join(job_dir, "supervisor")):
            if time.monotonic() > deadline:
                raise OSError("the supervisor did not begin")
            time.sleep(0.05)

    DETACHED = subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP

    def start_by_breakaway(argv: list[str], job_dir: str, common: Json) -> None:
        subprocess.Popen(argv, creationflags=DETACHED | subprocess.CREATE_BREAKAWAY_FROM_JOB, **common)

    def start_beside_no_job(argv: list[str], job_dir: str, common: Json) -> None:
        inside = ctypes.c_int()
        kernel = ctypes.windll.kernel32
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        kernel.IsProcessInJob(ctypes.c_void_p(kernel.GetCurrentProcess()), None, ctypes.byref(inside))
        if inside.value:
            raise OSError("the session is in a job object that lets nobody out")
        subprocess.Popen(argv, creationflags=DETACHED, **common)

    def start_by_cim(argv: list[str], job_dir: str, common: Json) -> None:
        import base64

        line = subprocess.list2cmdline(argv).replace("'", "''")
        code = (
            "$r = Invoke-CimMethod -ClassName Win32_Process -MethodName Create "
            f"-Arguments @{{CommandLine='{line}'}}; exit $r.ReturnValue"
        )
        encoded = base64.b64encode(code.encode("utf-16-le")).decode()
        powershell = ["powershell.exe", "-NoProfile", "-NonInteractive", "-EncodedCommand", encoded]
        subprocess.run(powershell, check=True, capture_output=True, timeout=60)

    def start_by_task(argv: list[str], job_dir: str, common: Json) -> None:
        script = os.path.join(job_dir, "start.cmd")  # a task's own command may have 261 characters
        with open(script, "w", encoding="utf-8") as file:
            file.write("@" + subprocess.list2cmdline(argv) + "\n")
        name = "hafs-" + os.path.basename(job_dir)
        steps = (
            ["/Create", "/TN", name, "/TR", f'"{script}"', "/SC", "ONCE", "/ST", "00:00", "/F"],
            ["/Run", "/TN", name],
            ["/Delete", "/TN", name, "/F"],
        )
        for step in steps:
            subprocess.run(["schtasks.exe", *step], check=True, capture_output=True, timeout=60)

    class JobObject:
        """All processes of a job, however they were started. It ends them when the supervisor is gone."""

        def __init__(self, process: subprocess.Popen[bytes]) -> None:
            self.kernel = ctypes.WinDLL("kernel32", use_last_error=True)
            self.kernel.CreateJobObjectW.restype = ctypes.c_void_p
            self.handle = ctypes.c_void_p(self.kernel.CreateJobObjectW(None, None))
            limits = (ctypes.c_ubyte * 144)()  # JOBOBJECT_EXTENDED_LIMIT_INFORMATION of 64-bit Windows
            ctypes.memmove(ctypes.addressof(limits) + 16, ctypes.byref(ctypes.c_ulong(0x2000)), 4)
            limited = self.kernel.SetInformationJobObject(self.handle, 9, ctypes.byref(limits), 144)
            handle = ctypes.c_void_p(int(process._handle))  # type: ignore[attr-defined]
            if not limited or not self.kernel.AssignProcessToJobObject(self.handle, handle):
                raise ctypes.WinError(ctypes.get_last_error())

        def active(self) -> int:
            """How many of them run."""
            told = (ctypes.c_ulong * 12)()  # JOBOBJECT_BASIC_ACCOUNTING_INFORMATION, 48 bytes
            self.kernel.QueryInformationJobObject(self.handle, 1, ctypes.byref(told), 48, None)
            return int(told[10])

        def end(self) -> None:
            self.kernel.TerminateJobObject(self.handle, 1)

    job_objects: dict[int, JobObject] = {}


# ---------------------------------------------------------------- readings


def smi_command() -> Optional[str]:
    return shutil.which("nvidia-smi")


def gpu_names() -> tuple[list[str], str]:
    """Names of the GPUs, or none and the reason in nvidia-smi's words."""
    command = smi_command()
    if command is None:
        return [], "nvidia-smi is not there"
    try:
        asked = subprocess.run(
            [command, "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], str(error)
    text = asked.stdout.decode("utf-8", "replace").strip()
    return (text.splitlines(), "") if asked.returncode == 0 else ([], text or f"exit code {asked.returncode}")


def smi_table(command: str, query: str, fields: list[str]) -> list[list[str]]:
    """Rows of a query, the last field whole even if it holds commas. A field that this driver does not know
    fails the whole query (code 2), so then each is asked alone, and an unknown one is `[N/A]`."""
    argv = [command, f"--query-{query}={','.join(fields)}", "--format=csv,noheader,nounits"]
    asked = subprocess.run(argv, capture_output=True, timeout=30, check=False)
    if asked.returncode == 2 and len(fields) > 1:
        columns = [smi_table(command, query, [field]) for field in fields]
        height = max(len(column) for column in columns)
        return [
            [column[row][0] if row < len(column) else "[N/A]" for column in columns] for row in range(height)
        ]
    if asked.returncode != 0:
        return []
    lines = asked.stdout.decode("utf-8", "replace").splitlines()
    return [[cell.strip() for cell in line.split(",", len(fields) - 1)] for line in lines if line.strip()]


def smi_samples(process: subprocess.Popen[bytes]) -> Iterator[list[str]]:
    """The lines of one sample at a time. Each line begins with how many GPUs there are, and its index."""
    sample: list[str] = []
    last = -1
    assert process.stdout is not None  # noqa: S101 (it was asked for)
    for raw in process.stdout:
        line = raw.decode("utf-8", "replace").strip()
        count, _, rest = line.partition(",")
        index = rest.partition(",")[0].strip()
        if not (count.strip().isdigit() and index.isdigit()):
            continue  # words instead of a reading: the exit code and the missing sample tell the rest
        if int(index) <= last and sample:
            yield sample
            sample = []
        sample.append(line)
        last = int(index)
        if len(sample) >= int(count):
            yield sample
            sample, last = [], -1


class Processor:
    """Use of the processor since the last call, and of the memory now."""

    def __init__(self) -> None:
        self.name = platform.processor() or platform.machine()
        if sys.platform == "linux":
            with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
                found = re.search(r"model name\s*:\s*(.+)", file.read())
            self.name = found.group(1) if found else platform.machine()
        self.busy, self.total = self.times()

    def times(self) -> tuple[float, float]:
        """(busy, total) since the start, in the system's own unit."""
        if sys.platform == "linux":
            with open("/proc/stat") as file:
                ticks = [float(value) for value in file.readline().split()[1:9]]
            return sum(ticks) - ticks[3] - ticks[4], sum(ticks)
        if sys.platform == "win32":
            idle, kernel, user = (ctypes.c_ulonglong() for _ in range(3))
            ctypes.windll.kernel32.GetSystemTimes(*[ctypes.byref(value) for value in (idle, kernel, user)])
            return kernel.value + user.value - idle.value, kernel.value + user.value
        # The load average stands in for a counter: busy processors, integrated over time.
        return os.getloadavg()[0] / (os.cpu_count() or 1) * time.monotonic(), time.monotonic()

    def utilization(self) -> Optional[float]:
        if sys.platform not in ("linux", "win32"):
            return min(100.0, 100.0 * os.getloadavg()[0] / (os.cpu_count() or 1))
        busy, total = self.times()
        used, passed = busy - self.busy, total - self.total
        self.busy, self.total = busy, total
        return round(100.0 * used / passed, 1) if passed > 0 else None

    def memory_mib(self) -> tuple[Optional[float], Optional[float]]:
        """(used, total)."""
        mib = 1024.0 * 1024.0
        if sys.platform == "linux":
            with open("/proc/meminfo") as file:
                kib = {name: float(value) for name, value in re.findall(r"(\w+):\s+(\d+)", file.read())}
            return (kib["MemTotal"] - kib["MemAvailable"]) / 1024, kib["MemTotal"] / 1024
        if sys.platform == "win32":
            status = (ctypes.c_ulonglong * 8)()
            ctypes.memmove(status, ctypes.byref(ctypes.c_ulong(64)), 4)
            ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
            return (status[1] - status[2]) / mib, status[1] / mib
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        listed = subprocess.run(["/usr/bin/vm_stat"], capture_output=True, text=True, check=False).stdout
        pages = {name: float(value) for name, value in re.findall(r"Pages (\w+):\s+(\d+)", listed)}
        free = (pages.get("free", 0.0) + pages.get("inactive", 0.0)) * os.sysconf("SC_PAGE_SIZE")
        return (total - free) / mib, total / mib

    def reading(self) -> Json:
        used, total = self.memory_mib()
        return {"name": self.name, "utilization": self.utilization(), "used_mib": used, "total_mib": total}


# ---------------------------------------------------------------- a session


@contextlib.contextmanager
def part_still_there(part: str) -> Iterator[None]:
    """Two may send the same file at once. The slower one finds its part gone and is to ask again."""
    try:
        yield
    except FileNotFoundError:
        raise Refused("offset", f"{part} is gone: another copy of the same file came first") from None


Reply = Callable[..., None]


class Session:
    """Requests in from `source`, answers out to `sink`. Slow ones have a thread each; writes keep order."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self.source = source
        self.sink = sink
        self.sink_lock = threading.Lock()
        self.children: set[subprocess.Popen[bytes]] = set()
        self.streams: dict[int, threading.Event] = {}
        self.runs: dict[int, subprocess.Popen[bytes]] = {}
        self.root = ""
        self.jobs = Jobs("")
        self.gpu_count: Optional[int] = None
        self.digests: dict[str, Any] = {}  # of parts that this session wrote from their first byte on

    def serve(self) -> None:
        try:
            while True:
                line = self.source.readline()
                if not line.endswith(b"\n"):
                    break
                header: Json = json.loads(line)
                body = self.source.read(header.pop("n", 0))
                self.dispatch(header.pop("id"), header.pop("op"), header, body)
        finally:
            self.end_children()

    def dispatch(self, number: int, op: str, arguments: Json, body: bytes) -> None:
        handler = getattr(self, "op_" + op, None)
        if handler is None:
            return self.send(number, {"error": {"kind": "bad", "message": f"no such request: {op}"}})
        if op in ("hello", "write", "stop"):
            return self.answer(number, handler, arguments, body)
        if op == "gpus":
            self.streams[number] = threading.Event()
        if op in ("gpus", "run"):
            arguments["number"] = number
        threading.Thread(target=self.answer, args=(number, handler, arguments, body), daemon=True).start()

    def answer(self, number: int, handler: Callable[..., Any], arguments: Json, body: bytes) -> None:
        try:
            result = handler(body=body, **arguments)
            header, raw = result if isinstance(result, tuple) else (result, b"")
            self.send(number, header or {}, raw)
        except Refused as error:
            self.send(number, {"error": {"kind": error.kind, "message": str(error)}})
        except FileNotFoundError as error:
            self.send(number, {"error": {"kind": "missing", "message": str(error)}})
        except OSError as error:
            kind = "no space" if error.errno == errno.ENOSPC else type(error).__name__
            self.send(number, {"error": {"kind": kind, "message": str(error)}})
        except Exception as error:  # whoever asked waits for an answer, whatever went wrong
            self.send(number, {"error": {"kind": type(error).__name__, "message": str(error)}})

    def send(self, number: int, header: Json, raw: bytes = b"") -> None:
        line = json.dumps({"id": number, **header, "n": len(raw)}).encode() + b"\n"
        with self.sink_lock:
            try:
                self.sink.write(line + raw)
                self.sink.flush()
            except OSError:
                self.end_children()
                os._exit(0)  # nobody hears us: the reader's end of input would say the same

    def path(self, path: str) -> str:
        return os.path.normpath(os.path.join(self.root, os.path.expanduser(path)))

    def end_children(self) -> None:
        for child in list(self.children):
            self.end_child(child)

    def end_child(self, child: subprocess.Popen[bytes]) -> None:
        """End what a session started for itself, with its process group. Supervisors are not among it."""
        if child.poll() is None:
            if sys.platform == "win32":
                child.kill()
            else:
                try:
                    os.killpg(child.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            child.wait()
        self.children.discard(child)

    # ---- about the host

    def op_hello(self, nonce: str, root: str, body: bytes) -> Json:
        with self.sink_lock:
            self.sink.write(b"\nHAFS-AGENT " + nonce.encode() + b"\n")
        self.root = os.path.abspath(os.path.expanduser(root))
        self.jobs = Jobs(self.root)
        try:
            os.makedirs(self.root, exist_ok=True)
            os.makedirs(self.jobs.folder, mode=0o700, exist_ok=True)
        except OSError as error:
            raise Refused("root", f"cannot use the folder {self.root}: {error}") from error
        with contextlib.suppress(OSError):  # after a restart of the host nobody else would go on
            self.jobs.queue.advance()
        return {"protocol": PROTOCOL, "root": self.root, "python_version": platform.python_version()}

    def op_probe(self, body: bytes) -> Json:
        names, problem = gpu_names()
        total = Processor().memory_mib()[1]
        return {
            "os": {"win32": "windows"}.get(sys.platform, sys.platform),
            "machine": platform.machine(),
            "hostname": socket.gethostname(),
            "user": getpass.getuser(),
            "python": sys.executable,
            "python_version": platform.python_version(),
            "root": self.root,
            "cpus": os.cpu_count() or 1,
            "memory_bytes": int(total * 1024 * 1024) if total else None,
            "disk_free_bytes": shutil.disk_usage(self.root).free,
            "gpus": names,
            "gpu_problem": problem,
            "boot_id": boot_id(),
        }

    def op_ping(self, body: bytes) -> Json:
        return {"now": time.time()}

    def op_disk(self, path: str, body: bytes) -> Json:
        usage = shutil.disk_usage(self.path(path))
        return {"total": usage.total, "free": usage.free}

    def op_gpus(self, number: int, interval_s: float, body: bytes) -> Json:
        """Samples until `stop`: nvidia-smi's lines, and the processor where it gives none."""
        stopped = self.streams[number]
        processor = Processor()
        while not stopped.is_set():
            command = smi_command()
            if command is not None and self.follow_smi(command, number, interval_s, stopped):
                stopped.wait(interval_s)  # it gave readings and ended: a driver that is being replaced, say
                continue
            again = time.monotonic() + 30.0
            while time.monotonic() < again and not stopped.wait(interval_s):
                self.send(number, {"cpu": processor.reading()})
        del self.streams[number]
        return {"end": True}

    def op_gpu_details(self, body: bytes) -> tuple[Json, bytes]:
        """What is asked for when somebody looks, and not each second: tables as nvidia-smi prints them."""
        command = smi_command()
        told: Json = {"gpus": [], "processes": [], "listed": []}
        if command is not None:
            told["gpus"] = smi_table(command, "gpu", DETAIL_FIELDS)
            told["processes"] = smi_table(command, "compute-apps", APP_FIELDS)
            listed = subprocess.run([command, "-L"], capture_output=True, timeout=30, check=False)
            told["listed"] = listed.stdout.decode("utf-8", "replace").splitlines()
        return {}, json.dumps(told).encode()

    def follow_smi(self, command: str, number: int, interval_s: float, stopped: threading.Event) -> bool:
        """False when it gave no reading at all."""
        argv = [command, f"--query-gpu={SMI_FIELDS}", "--format=csv,noheader,nounits"]
        argv += ["-lms", str(max(100, int(interval_s * 1000)))]
        child = self.start_child(argv)
        gave = False
        try:
            for sample in smi_samples(child):
                if stopped.is_set():
                    break
                gave = True
                self.send(number, {"smi": sample})
        finally:
            self.end_child(child)
        return gave

    def op_stop(self, number: int, body: bytes) -> Json:
        """Nobody waits for the answer to that request any more."""
        if number in self.streams:
            self.streams[number].set()
        if number in self.runs:
            self.end_child(self.runs[number])
        return {}

    # ---- commands and jobs

    def start_child(self, argv: list[str], **options: Any) -> subprocess.Popen[bytes]:
        defaults: Json = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        child = subprocess.Popen(argv, **{**defaults, **options}, start_new_session=True)
        self.children.add(child)
        return child

    def op_run(
        self, number: int, argv: list[str], timeout_s: float, cwd: Optional[str], body: bytes
    ) -> tuple[Json, bytes]:
        where = self.path(cwd) if cwd else self.root
        pipe = subprocess.PIPE
        child = self.start_child(argv, cwd=where, stdin=pipe, stderr=pipe)
        self.runs[number] = child
        try:
            out, err = child.communicate(body, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise Refused("timeout", f"no end after {timeout_s:g} s: {argv[0]}") from None
        finally:
            del self.runs[number]
            self.end_child(child)
        out, err = out[:OUTPUT_LIMIT], err[:OUTPUT_LIMIT]
        return {"exit_code": child.returncode, "stdout": len(out)}, out + err

    def op_launch(
        self,
        job_id: str,
        argv: list[str],
        env: Json,
        cwd: Optional[str],
        now: bool,
        resumable: bool,
        min_free_bytes: int,
        slots: Optional[int],
        slurm: Optional[Json],
        body: bytes,
    ) -> Json:
        free = shutil.disk_usage(self.root).free
        if free < min_free_bytes and not os.path.isdir(self.jobs.dir_of(job_id)):
            wanted = f"{min_free_bytes / 2**30:.1f} GiB are to be free"
            raise Refused(
                "no space", f"{free / 2**30:.1f} GiB are free under {self.root}, {wanted} (min_free_gib)"
            )
        if self.gpu_count is None and not slurm:
            self.gpu_count = len(gpu_names()[0])
        asked: Json = {"argv": argv, "env": env, "cwd": self.path(cwd) if cwd else None, "now": now}
        asked.update(resumable=resumable, min_free_bytes=min_free_bytes, slurm=slurm)
        return {"status": self.jobs.launch(job_id, asked, slots, self.gpu_count or 0)}

    def op_move(self, job_id: str, to: int, body: bytes) -> Json:
        self.jobs.status(job_id)  # one that is not there is told as such
        if self.jobs.by_slurm(job_id):
            raise Refused("not waiting", f"job {job_id} waits in Slurm's queue, whose order is Slurm's")
        self.jobs.queue.move(job_id, to)
        return {"status": self.jobs.status(job_id)}

    def op_status(self, job_id: str, body: bytes) -> Json:
        return {"status": self.jobs.status(job_id)}

    def op_wait(self, job_id: str, wait_s: float, seen: Optional[list[Any]], body: bytes) -> Json:
        """The status once the job has ended or its [state, position, message] is not `seen`; else after
        `wait_s`."""
        deadline = time.monotonic() + wait_s
        while True:
            status = self.jobs.status(job_id)
            now = [status["state"], status["position"], status["message"]]
            if status["state"] in ENDED or time.monotonic() >= deadline or seen not in (None, now):
                return {"status": status}
            # A lost one writes no exit.json; a change of state matters only to those who say what they saw.
            look_again = min(deadline, time.monotonic() + (1.0 if seen is None else 0.25))
            while time.monotonic() < look_again:
                time.sleep(0.05)
                if os.path.exists(os.path.join(status["job_dir"], "exit.json")):
                    break

    def op_jobs(self, body: bytes) -> tuple[Json, bytes]:
        return {}, json.dumps(self.jobs.all()).encode()

    def op_cancel(self, job_id: str, grace_s: float, body: bytes) -> Json:
        return {"status": self.jobs.cancel(job_id, grace_s)}

    def op_follow(
        self, job_id: str, stream: str, offset: int, wait_s: float, body: bytes
    ) -> tuple[Json, bytes]:
        return self.jobs.read_stream(job_id, stream, offset, wait_s)

    # ---- files

    def op_stat(self, path: str, body: bytes) -> Json:
        path = self.path(path)
        found = os.stat(path)
        return {"path": path, "size": found.st_size, "mtime": found.st_mtime, "folder": os.path.isdir(path)}

    def op_hash(self, path: str, body: bytes) -> Json:
        path = self.path(path)
        program = os.access(path, os.X_OK)
        return {"path": path, "size": os.path.getsize(path), "sha256": file_sha256(path), "program": program}

    def op_tree(self, path: str, body: bytes) -> tuple[Json, bytes]:
        """Every file below a folder: [relative path with `/`, size], sorted."""
        top = self.path(path)
        files = []
        for folder, _, names in os.walk(top):
            for name in names:
                full = os.path.join(folder, name)
                if os.path.isfile(full) and not UNFINISHED.search(name):
                    relative = os.path.relpath(full, top).replace(os.sep, "/")
                    files.append([relative, os.path.getsize(full)])
        return {"path": top}, json.dumps(sorted(files)).encode()

    def op_read(self, path: str, offset: int, length: int, body: bytes) -> tuple[Json, bytes]:
        with open(self.path(path), "rb") as file:
            file.seek(offset)
            return {}, file.read(length)

    def part_of(self, path: str, sha256: str) -> str:
        """Where a file grows until it is whole; named by its content, so that a part is never another's."""
        return f"{path}.{sha256[:16]}.part"

    def op_offer(self, path: str, size: int, sha256: str, body: bytes) -> Json:
        """Is this content here? If not, how much of it was left by an earlier try?"""
        path = self.path(path)
        if os.path.isdir(path):
            raise Refused("bad", f"{path} is a folder")
        if os.path.isfile(path) and os.path.getsize(path) == size and file_sha256(path) == sha256:
            return {"path": path, "here": True, "offset": size}
        os.makedirs(os.path.dirname(path), exist_ok=True)
        part = self.part_of(path, sha256)
        offset = os.path.getsize(part) if os.path.exists(part) else 0
        free = shutil.disk_usage(os.path.dirname(path)).free
        if size - offset > free:
            raise Refused("no space", f"{path} needs {size - offset} bytes, {free} are free there")
        open(part, "ab").close()
        return {"path": path, "here": False, "offset": offset}

    def op_write(self, path: str, sha256: str, offset: int, body: bytes) -> Json:
        part = self.part_of(self.path(path), sha256)
        with part_still_there(part), open(part, "r+b") as file:
            if file.seek(0, os.SEEK_END) != offset:
                raise Refused("offset", f"{part} has {file.tell()} bytes, not {offset}")
            file.write(body)
        if offset == 0:
            self.digests[part] = hashlib.sha256()
        if part in self.digests:
            self.digests[part].update(body)
        return {}

    def op_have(self, body: bytes) -> tuple[Json, bytes]:
        """Which of these files, [path, size, sha256], are here with that content, as places in the list."""
        here = []
        for number, (name, size, sha256) in enumerate(json.loads(body)):
            path = self.path(name)
            if os.path.isfile(path) and os.path.getsize(path) == size and file_sha256(path) == sha256:
                here.append(number)
        return {}, json.dumps(here).encode()

    def op_hashes(self, body: bytes) -> tuple[Json, bytes]:
        """[size, sha256, may be executed] of each of these files."""
        told = []
        for name in json.loads(body):
            path = self.path(name)
            told.append([os.path.getsize(path), file_sha256(path), os.access(path, os.X_OK)])
        return {}, json.dumps(told).encode()

    def op_place(self, body: bytes) -> Json:
        """Small files in one frame: a line with [path, size, sha256, program] of each, then their bytes."""
        head, _, rest = body.partition(b"\n")
        at = 0
        for name, size, sha256, program in json.loads(head):
            self.place_one(self.path(name), rest[at : at + size], sha256, program)
            at += size
        return {}

    def place_one(self, path: str, data: bytes, sha256: str, program: bool) -> None:
        """Whole or not at all."""
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Refused("hash", f"what arrived of {path} is not what was sent")
        if os.path.isdir(path):
            raise Refused("bad", f"{path} is a folder")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        part = self.part_of(path, sha256)
        try:
            with part_still_there(part):
                with open(part, "wb") as file:
                    file.write(data)
                if program:
                    os.chmod(part, os.stat(part).st_mode | 0o100)
                replace(part, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise

    def op_fetch(self, body: bytes) -> tuple[Json, bytes]:
        """The bytes of these files, one after the other; how many of each in `sizes`."""
        files = []
        for name in json.loads(body):
            with open(self.path(name), "rb") as file:
                files.append(file.read(BLOCK))
        return {"sizes": [len(data) for data in files]}, b"".join(files)

    def op_accept(self, path: str, size: int, sha256: str, program: bool, body: bytes) -> Json:
        """Put a whole part in its place, if it is what was offered."""
        path = self.path(path)
        part = self.part_of(path, sha256)
        with part_still_there(part):
            digest = self.digests.pop(part, None)
            if (
                os.path.getsize(part) != size
                or (digest.hexdigest() if digest else file_sha256(part)) != sha256
            ):
                os.unlink(part)
                raise Refused("hash", f"what arrived of {path} is not what was sent")
            with open(part, "r+b") as file:
                os.fsync(file.fileno())
            if program:
                os.chmod(part, os.stat(part).st_mode | 0o100)
            replace(part, path)
        return {"path": path}

    def op_mkdir(self, path: str, body: bytes) -> Json:
        os.makedirs(self.path(path), exist_ok=True)
        return {}

    def op_rename(self, path: str, to: str, body: bytes) -> Json:
        os.makedirs(os.path.dirname(self.path(to)), exist_ok=True)
        replace(self.path(path), self.path(to))
        return {}

    def op_remove(self, path: str, body: bytes) -> Json:
        path = self.path(path)
        real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        top = os.path.realpath(self.root)
        if os.path.commonpath([real, top]) != top or real == top:
            raise Refused("bad", f"{path} is not below {self.root}: not removed")
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)
        return {}


def serve() -> None:
    """Keep input and output for frames alone: whatever we start gets neither."""
    source = os.fdopen(os.dup(0), "rb")
    sink = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    Session(source, sink).serve()
    os._exit(0)  # threads that wait in a long poll have nobody to answer to


def main() -> None:
    if sys.argv[1:] == ["serve"]:
        serve()
    elif len(sys.argv) == 3 and sys.argv[1] == "supervise":
        supervise(sys.argv[2])
    else:
        sys.exit("usage: agent.py serve | agent.py supervise JOBDIR")


if __name__ == "__main__":
    main()
