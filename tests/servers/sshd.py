"""A real OpenSSH server on loopback, for tests: own host key, own authorized_keys, own port.

Nothing of the user's `~/.ssh` is read or written. `with Sshd.start(folder) as server:` gives one; stop()
and start_again() play a restart of the daemon, under which sessions that are open go on.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

SSHD = "/usr/sbin/sshd"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)], check=True)
    return path


@dataclass
class Sshd:
    """A running server. user_key logs in as `user`; known_hosts knows its key at `port`."""

    folder: Path
    port: int
    user: str
    user_key: Path
    host_key: Path
    known_hosts: Path
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @classmethod
    def start(cls, folder: Path, **options: str) -> Sshd:
        """options: further lines of sshd_config, such as MaxSessions="10"."""
        folder.mkdir(parents=True, exist_ok=True)
        user_key = make_key(folder / "user_key")
        host_key = make_key(folder / "host_key")
        (folder / "authorized_keys").write_text(user_key.with_suffix(".pub").read_text())
        server = cls(folder, free_port(), getpass.getuser(), user_key, host_key, folder / "known_hosts")
        server.known_hosts.write_text(server.known_line(server.port))
        settings = {
            "HostKey": str(host_key),
            "AuthorizedKeysFile": str(folder / "authorized_keys"),
            "PidFile": "none",
            "StrictModes": "no",  # the tests' folder lies under a world-writable one
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "yes",
            "MaxStartups": "100",
            "Subsystem": "sftp internal-sftp",
            "AcceptEnv": "LANG",
            **options,
        }
        lines = [f"{name} {value}" for name, value in settings.items()]
        (folder / "sshd_config").write_text("\n".join(lines) + "\n")
        server.start_again()
        return server

    def known_line(self, port: int) -> str:
        """The line of known_hosts for this server, as seen at a port (a proxy's, say)."""
        kind, key = self.host_key.with_suffix(".pub").read_text().split()[:2]
        return f"[127.0.0.1]:{port} {kind} {key}\n"

    def new_host_key(self) -> None:
        """As after a reinstallation."""
        self.stop()
        self.host_key.unlink()
        self.host_key.with_suffix(".pub").unlink()
        make_key(self.host_key)
        self.start_again()

    def start_again(self) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # privilege separation insists on it
        config = str(self.folder / "sshd_config")
        log = str(self.folder / "sshd.log")
        self._process = subprocess.Popen([SSHD, "-D", "-f", config, "-p", str(self.port), "-E", log])
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"sshd did not start: {Path(log).read_text()}") from None
                time.sleep(0.02)

    def sessions(self) -> list[int]:
        """Process ids of the children that serve connections now."""
        if self._process is None:
            return []
        tasks = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(pid) for pid in tasks.read_text().split()]

    def kill_sessions(self) -> None:
        """SIGKILL to every connection's process, as if the daemon had crashed."""
        for pid in self.sessions():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def __enter__(self) -> Sshd:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_sessions()
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
