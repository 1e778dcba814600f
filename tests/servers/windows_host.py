"""A stand-in for a Windows host: an SSH server that runs each command with `wine cmd.exe /c`, as OpenSSH for
Windows runs its default shell, with a real Windows CPython, and whose SFTP knows paths as `/D:/x`.

What it cannot prove: that a process outlives a session's job object (wine's session has none), and PowerShell.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import asyncssh

VERSION = "OpenSSH_for_Windows_9.5"


def wine() -> str:
    found = shutil.which("wine64") or shutil.which("wine")
    if found is None:
        raise RuntimeError("no wine here: apt-get install wine64 wine")
    return found


@dataclass
class WindowsHost:
    """`folder` is the disk D:, with Python at D:/python/python.exe."""

    folder: Path
    python_files: Path
    port: int = 0

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "WINEPREFIX": str(self.folder / "prefix"), "WINEDEBUG": "-all"}

    @property
    def drive(self) -> Path:
        return self.folder / "drive"

    def prepare(self) -> None:
        """A fresh prefix whose D: is ours."""
        self.drive.mkdir(parents=True)
        shutil.copytree(self.python_files, self.drive / "python")
        subprocess.run(
            [wine(), "wineboot", "-i"], env=self.environment, check=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=90,
        )  # fmt: skip
        (self.folder / "prefix" / "dosdevices" / "d:").symlink_to(self.drive)

    def end(self) -> None:
        subprocess.run(["wineserver", "-k"], env=self.environment, check=False)

    async def serve(self, host_key: Path, user_key: Path) -> asyncssh.SSHAcceptor:
        """Listens until it is closed."""
        listening = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[str(host_key)],
            authorized_client_keys=str(user_key.with_suffix(".pub")),
            process_factory=self._run,
            sftp_factory=self._sftp,
            server_version=VERSION,
            encoding=None,
        )
        self.port = listening.get_port()
        return listening

    async def _run(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        argv = (wine(), "cmd.exe", "/c", str(process.command))
        child = await asyncio.create_subprocess_exec(
            *argv, env=self.environment, cwd=self.drive, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        # The banner of a login script, in a code page that is no UTF-8.
        process.stdout.write("Willkommen, Müller\r\n".encode("cp850"))
        await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr)
        process.exit(await child.wait())

    def _sftp(self, channel: asyncssh.SSHServerChannel[bytes]) -> asyncssh.SFTPServer:
        drive = self.drive

        class Sftp(asyncssh.SFTPServer):
            def map_path(self, path: bytes) -> bytes:
                name = path.decode()
                if name.lower().startswith("/d:"):
                    name = name[3:]
                return os.fsencode(drive / name.lstrip("/"))

        return Sftp(channel)
