"""What a Windows host says, as Microsoft documents it: its version, PowerShell's UTF-16, a console's code page.
A real Windows Python is tested by `make windows`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from remote import HostConfig, HostError, open_host
from remote.session import as_text
from tests.servers.sshd import make_key

NOT_RECOGNIZED = "python : The term 'python' is not recognized as the name of a cmdlet, function, script file"


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (NOT_RECOGNIZED.encode("utf-16-le"), NOT_RECOGNIZED),
        (b"\xff\xfe" + "Müller".encode("utf-16-le"), "Müller"),
        ("ist falsch geschrieben für\r\n".encode("cp437"), "ist falsch geschrieben für\r\n"),
        ("größe".encode(), "größe"),
        (b"", ""),
    ],
)  # fmt: skip
def test_words_of_a_login_are_read_whatever_their_encoding(said: bytes, text: str) -> None:
    assert as_text(said) == text


@pytest.fixture
async def config(tmp_path: Path) -> AsyncIterator[HostConfig]:
    """A server that calls itself OpenSSH for Windows, has SFTP, and knows no Python."""
    host_key, user_key = make_key(tmp_path / "host_key"), make_key(tmp_path / "user_key")
    (tmp_path / "disk").mkdir()

    async def run(process: asyncssh.SSHServerProcess[bytes]) -> None:
        (tmp_path / "command").write_text(str(process.command))
        process.stderr.write(NOT_RECOGNIZED.encode("utf-16-le"))
        process.exit(1)

    def sftp(channel: asyncssh.SSHServerChannel[bytes]) -> asyncssh.SFTPServer:
        return asyncssh.SFTPServer(channel, chroot=str(tmp_path / "disk").encode())

    async with await asyncssh.listen(
        "127.0.0.1", 0, server_host_keys=[str(host_key)], process_factory=run, sftp_factory=sftp, encoding=None,
        authorized_client_keys=str(user_key) + ".pub", server_version="OpenSSH_for_Windows_9.5",
    ) as server:  # fmt: skip
        port = server.get_port()
        kind, key = host_key.with_suffix(".pub").read_text().split()[:2]
        (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
        (tmp_path / "ssh_config").write_text("")
        yield HostConfig(
            "box", "ssh", "127.0.0.1", port, "me", user_key, root="D:/hafs", known_hosts=tmp_path / "known_hosts",
            ssh_config=tmp_path / "ssh_config",
        )  # fmt: skip


async def failure(config: HostConfig) -> HostError:
    host = open_host(config)
    with pytest.raises(HostError) as caught:
        await host.jobs()
    await host.aclose()
    return caught.value


async def test_the_command_line_needs_no_quotes_and_the_agent_goes_by_its_drive(
    config: HostConfig, tmp_path: Path
) -> None:
    error = await failure(config)
    assert "not recognized" in error.message
    assert "absolute path" in error.remedy
    command = (tmp_path / "command").read_text()
    assert command.startswith("python -I -u -X utf8 D:/hafs/agent/agent-")
    assert '"' not in command
    assert list((tmp_path / "disk" / "D:" / "hafs" / "agent").glob("agent-*.py"))


async def test_a_path_that_its_shells_read_differently_is_refused(config: HostConfig) -> None:
    error = await failure(replace(config, python="C:\\Program Files\\Python\\python.exe"))
    assert "Program Files" in error.message
    assert "dir /x" in error.remedy
