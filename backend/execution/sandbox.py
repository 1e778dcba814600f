"""What a process gives up before it touches what a model wrote: resources, files, the network, new processes.

Three layers, each of which holds alone: resource limits (POSIX), Landlock (Linux: which files, no TCP) and a
seccomp filter (Linux on x86-64 and ARM64: no new processes, no sockets). Where the last two are missing,
`landlock_version` and `has_seccomp` say so, and callers decide what may still run.

Standard library only: the execution child imports it. Numbers are those of Linux' user-space headers
(linux/landlock.h, linux/seccomp.h, linux/filter.h, asm/unistd.h).
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds of CPU, bytes of address space, bytes that one file may have."""

    cpu_s: int
    memory: int
    file_size: int


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def limit_resources(limits: Limits, *, processes: bool) -> None:
    """Set the limits for this process and its children; `processes` lets it still make some.

    The limit on processes does not hold for root, which is why the seccomp filter says it again.
    """
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_s, limits.cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_size, limits.file_size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # macOS refuses it
        resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
    if not processes:
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


# --- Landlock: files and TCP ----------------------------------------------------------------------------------

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PR_SET_NO_NEW_PRIVS = 38
_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_REMOVE_FILE, _MAKE_REG, _TRUNCATE = 1 << 5, 1 << 8, 1 << 14
_READ = _EXECUTE | _READ_FILE
_WORK = _READ_FILE | _READ_DIR | _WRITE_FILE | _REMOVE_FILE | _MAKE_REG | _TRUNCATE
_ONLY_FOR_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
# Which rights each version of the interface knows: what it does not know may not be named.
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
_NEWEST_FILE_RIGHTS = (1 << 16) - 1
_TCP_RIGHTS, _SCOPES = 0b11, 0b11


@cache
def landlock_version() -> int:
    """The version of Landlock's interface, 0 where this system has none."""
    if sys.platform != "linux":
        return 0
    version: int = _libc().syscall(_CREATE_RULESET, None, 0, 1)
    return max(0, version)


def restrict_files(readable: Sequence[str], work: str | None) -> None:
    """From here on only what lies at or beneath `readable` can be read or started, only `work` be written,
    and no TCP be spoken. Does nothing where there is no Landlock. Raises OSError."""
    version = landlock_version()
    if not version:
        return
    libc = _libc()
    rights = _FILE_RIGHTS.get(version, _NEWEST_FILE_RIGHTS)
    attributes = struct.pack("=QQQ", rights, _TCP_RIGHTS, _SCOPES)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _check(libc.syscall(_CREATE_RULESET, attributes, size, 0), "landlock_create_ruleset")
    places = [(path, _READ) for path in readable] + ([(work, _WORK)] if work else [])
    for path, allowed in places:
        if not os.path.exists(path):
            continue
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        if not os.path.isdir(path):
            allowed &= _ONLY_FOR_FILES
        rule = struct.pack("=Qi", allowed & rights, descriptor)
        _check(libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0), f"landlock_add_rule {path}")
        os.close(descriptor)
    _give_up_privileges(libc)
    _check(libc.syscall(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    os.close(ruleset)


def _give_up_privileges(libc: ctypes.CDLL) -> None:
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


# --- seccomp: processes and sockets ---------------------------------------------------------------------------

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 1, 22, 2
# machine: (AUDIT_ARCH, calls that make processes or sockets or look into others, calls that start programs)
_CALLS = {
    "x86_64": (0xC000003E, (56, 57, 58, 435, 41, 53, 101, 425), (59, 322)),
    "aarch64": (0xC00000B7, (220, 435, 198, 199, 117, 425), (221, 281)),
}
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | 1  # 1: EPERM
_X32_CALLS = 0x40000000


def has_seccomp() -> bool:
    return sys.platform == "linux" and platform.machine() in _CALLS


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def forbid_processes(*, programs: bool) -> None:
    """No new process, thread or socket from here on; with `programs` this one may still become another
    program. Refused calls fail with EPERM. Does nothing where there is no filter for this machine."""
    if not has_seccomp():
        return
    architecture, calls, starts = _CALLS[platform.machine()]
    refused = calls if programs else calls + starts

    def step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("=HBBI", code, yes, no, value)

    count = len(refused)
    steps = [
        step(_LOAD, 4),  # seccomp_data.arch
        step(_JUMP_EQUAL, architecture, 1, 0),
        step(_RETURN, _KILL),
        step(_LOAD, 0),  # seccomp_data.nr
        step(_JUMP_AT_LEAST, _X32_CALLS, count + 1, 0),
        *(step(_JUMP_EQUAL, call, count - place) for place, call in enumerate(refused)),
        step(_RETURN, _ALLOW),
        step(_RETURN, _REFUSE),
    ]
    libc = _libc()
    _give_up_privileges(libc)
    program = _Program(len(steps), b"".join(steps))
    _check(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0), "seccomp")


def die_with_parent() -> None:
    """Have the kernel end this process when the one that made it ends (Linux)."""
    if sys.platform == "linux":
        _check(_libc().prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0), "pdeathsig")
