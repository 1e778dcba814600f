"""The link to an SSH host: whom it trusts, what it says when it fails, and how it comes back."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from remote import Host, HostConfig, HostError, HostKeyChanged, HostKeyUnknown, Launch, LinkLost, open_host
from remote import session as session_module
from tests.servers.hosts import ssh_config
from tests.servers.sshd import Sshd, free_port, make_key
from tests.servers.tcp_proxy import TcpProxy


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Whoever runs the tests has a ~/.ssh of their own, which is to play no part."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def config(sshd: Sshd, tmp_path: Path) -> HostConfig:
    return ssh_config(sshd, sshd.port, tmp_path / "root", tmp_path / "known_hosts")


async def failure_of(config: HostConfig) -> HostError:
    host = open_host(config)
    try:
        with pytest.raises(HostError) as caught:
            await host.jobs()
    finally:
        await host.aclose()
    assert caught.value.host == config.name
    assert caught.value.remedy
    return caught.value


async def works(config: HostConfig) -> bool:
    host = open_host(config)
    try:
        return await host.jobs() == []
    finally:
        await host.aclose()


def fingerprint(key: Path) -> str:
    return subprocess.run(
        ["ssh-keygen", "-lf", str(key)], capture_output=True, text=True, check=True
    ).stdout.split()[1]


async def test_an_unknown_host_key_is_shown_and_accepted_only_when_asked(
    sshd: Sshd, config: HostConfig, tmp_path: Path
) -> None:
    assert config.known_hosts is not None
    config.known_hosts.unlink()
    error = await failure_of(config)
    assert isinstance(error, HostKeyUnknown)
    assert error.fingerprint == fingerprint(sshd.host_key)
    assert error.fingerprint in str(error)
    assert not config.known_hosts.exists()

    assert await works(replace(config, accept_new=True))
    assert config.known_hosts.read_text() == sshd.known_line(sshd.port)
    assert await works(config)


async def test_a_host_that_ssh_knows_already_needs_no_asking(
    sshd: Sshd, config: HostConfig, home: Path
) -> None:
    assert config.known_hosts is not None
    config.known_hosts.unlink()
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "known_hosts").write_text(sshd.known_line(sshd.port))
    assert await works(config)
    assert not config.known_hosts.exists()


async def test_a_changed_host_key_is_refused_with_both_fingerprints(
    sshd: Sshd, config: HostConfig, tmp_path: Path
) -> None:
    assert config.known_hosts is not None
    other = make_key(tmp_path / "other")
    kind, key = other.with_suffix(".pub").read_text().split()[:2]
    before = f"[127.0.0.1]:{sshd.port} {kind} {key}\n"
    config.known_hosts.write_text(before)
    for accept_new in (False, True):
        error = await failure_of(replace(config, accept_new=accept_new))
        assert isinstance(error, HostKeyChanged)
        assert fingerprint(sshd.host_key) in str(error)
        assert fingerprint(other) in str(error)
        assert str(config.known_hosts) in error.remedy
    assert config.known_hosts.read_text() == before


async def test_a_host_key_of_another_kind_is_a_changed_key(sshd: Sshd, config: HostConfig) -> None:
    assert config.known_hosts is not None
    other = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
    public = other.export_public_key().decode()
    config.known_hosts.write_text(f"[127.0.0.1]:{sshd.port} {public}")
    error = await failure_of(replace(config, accept_new=True))
    assert isinstance(error, HostKeyChanged)
    assert other.get_fingerprint() in str(error)
    assert fingerprint(sshd.host_key) in str(error)


async def test_a_broken_known_hosts_is_named(config: HostConfig) -> None:
    assert config.known_hosts is not None
    config.known_hosts.write_text("only-a-name\n")
    error = await failure_of(config)
    assert "only-a-name" in str(error)
    assert str(config.known_hosts) in str(error)


async def test_wrong_key_and_wrong_user_are_told_apart_from_a_dead_host(
    config: HostConfig, tmp_path: Path
) -> None:
    error = await failure_of(replace(config, key=make_key(tmp_path / "stranger")))
    assert error.step == "log in"
    assert "authorized_keys" in error.remedy
    error = await failure_of(replace(config, user="nobody-of-that-name"))
    assert error.step == "log in"
    assert "nobody-of-that-name" in error.message
    error = await failure_of(replace(config, key=tmp_path / "missing"))
    assert "missing" in error.message
    locked = tmp_path / "locked"
    locked.write_bytes(asyncssh.generate_private_key("ssh-ed25519").export_private_key(passphrase="secret"))
    error = await failure_of(replace(config, key=locked))
    assert error.step == "read the SSH settings"
    assert "ssh-agent" in error.remedy
    error = await failure_of(replace(config, port=free_port()))
    assert isinstance(error, LinkLost)
    assert "refused" in error.message
    error = await failure_of(replace(config, address="no-such-host.invalid"))
    assert isinstance(error, LinkLost)
    assert "no-such-host.invalid" in error.message


async def test_a_host_that_accepts_and_says_nothing_is_given_up(
    sshd: Sshd, config: HostConfig, proxy: TcpProxy
) -> None:
    proxy.drop()
    began = time.monotonic()
    error = await failure_of(replace(config, port=proxy.port, connect_timeout_s=0.5))
    assert isinstance(error, LinkLost)
    assert time.monotonic() - began < 5


async def test_no_python_old_python_and_a_login_that_waits(
    config: HostConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = await failure_of(replace(config, python="/no/such/python3"))
    assert error.step == "start the agent"
    assert "no such Python" in error.message

    old = tmp_path / "old python"
    old.write_text(
        "#!/bin/sh\necho '  File \"agent.py\", line 27' >&2\necho 'SyntaxError: future' >&2\nexit 1\n"
    )
    old.chmod(0o755)
    error = await failure_of(replace(config, python=str(old)))
    assert "too old" in error.message

    monkeypatch.setattr(session_module, "HELLO_TIMEOUT_S", 1.0)
    waits = tmp_path / "waits"
    waits.write_text("#!/bin/sh\necho 'Choose your project:'\nread project\nread more\n")
    waits.chmod(0o755)
    error = await failure_of(replace(config, python=str(waits)))
    assert "Choose your project:" in error.message


async def test_a_server_without_sftp_is_told_so(tmp_path: Path) -> None:
    with Sshd.start(tmp_path / "plain", Subsystem="none /bin/false") as server:
        error = await failure_of(ssh_config(server, server.port, tmp_path / "root", tmp_path / "known"))
    assert "Subsystem sftp" in error.remedy


async def test_a_root_that_cannot_be_made_names_itself(config: HostConfig) -> None:
    error = await failure_of(replace(config, root="/proc/nothing"))
    assert "/proc/nothing" in str(error)


@pytest.fixture
def noisy_sshd(tmp_path: Path) -> Iterator[Sshd]:
    """Its shell prints a banner, bytes that are no text, and a long line without an end, before all else."""
    noise = tmp_path / "noise"
    noise.write_bytes(b"*** Welcome ***\r\n(base) \xff\xfe\x1b[31m\n" + b"conda " * 20_000)
    shell = tmp_path / "shell"
    shell.write_text(
        '#!/bin/sh\ncase "$SSH_ORIGINAL_COMMAND" in *sftp-server*) ;; '
        f'*) cat {noise}; echo to-stderr >&2 ;; esac\neval "$SSH_ORIGINAL_COMMAND"\n'
    )
    shell.chmod(0o755)
    with Sshd.start(
        tmp_path / "noisy", ForceCommand=str(shell), Subsystem="sftp /usr/lib/openssh/sftp-server"
    ) as server:
        yield server


async def test_noise_before_the_agent_is_skipped(noisy_sshd: Sshd, tmp_path: Path) -> None:
    config = ssh_config(noisy_sshd, noisy_sshd.port, tmp_path / "my root's", tmp_path / "known")
    host = open_host(config)
    assert (await host.run(("echo", "clean"))).stdout == b"clean\n"
    await host.aclose()
    error = await failure_of(replace(config, python="/no/such/python3"))
    assert "no such Python" in error.message


async def test_a_link_may_break_at_any_moment(sshd: Sshd, tmp_path: Path, proxy: TcpProxy) -> None:
    """From the key exchange to the middle of the job's bytes: LinkLost or nothing, and no byte twice."""
    config = ssh_config(sshd, proxy.port, tmp_path / "root", tmp_path / "known_hosts")
    host = open_host(config)
    job = await host.launch(Launch("bytes", (sys.executable, "-c", "print('0123456789' * 3000)")))
    await host.wait(job.job_id)
    await host.aclose()
    broken = 0
    for limit in range(200, 40_000, 4_100):
        host = open_host(config)
        proxy.limit = limit
        got, tries = b"", 0
        while not got.endswith(b"\n"):
            try:
                async for chunk in host.follow("bytes", "stdout", len(got)):
                    assert chunk.offset == len(got)
                    got += chunk.data
            except LinkLost:
                broken += 1
                tries += 1
        assert tries <= 1
        assert got == b"0123456789" * 3000 + b"\n"
        await host.aclose()
    assert broken >= 1


async def line_numbers(host: Host, job_id: str) -> list[int]:
    data = b"".join([chunk.data async for chunk in host.follow(job_id, "stdout")])
    return [int(line) for line in data.split()]


async def test_a_silent_link_is_noticed_and_sshd_may_restart(
    sshd: Sshd, tmp_path: Path, proxy: TcpProxy
) -> None:
    host = open_host(ssh_config(sshd, proxy.port, tmp_path / "root", tmp_path / "known_hosts"))
    code = "import time\nfor i in range(180):\n    print(i)\n    time.sleep(0.1)"
    await host.launch(Launch("slow", (sys.executable, "-c", code)))
    follower = asyncio.create_task(line_numbers(host, "slow"))
    proxy.drop()
    began = time.monotonic()
    while proxy.links < 2:  # the next try to connect: it gets no answer either
        assert time.monotonic() - began < 15, "a dead link is to be noticed within 15 s"
        await asyncio.sleep(0.05)
    proxy.restore()
    sshd.kill_sessions()
    sshd.stop()
    await asyncio.sleep(0.5)
    sshd.start_again()
    assert await follower == list(range(180))
    assert (await host.status("slow")).state == "done"
    await host.aclose()


async def test_a_forwarded_port_leads_there_and_survives_a_cut(
    sshd: Sshd, tmp_path: Path, proxy: TcpProxy
) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello " + await reader.readline())
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    host = open_host(ssh_config(sshd, proxy.port, tmp_path / "root", tmp_path / "known_hosts"))

    async def through(local: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", local)
        writer.write(b"you\n")
        answer = await reader.read()
        writer.close()
        return answer

    local = await host.forward(port)
    assert local != port
    assert await through(local) == b"hello you\n"
    assert await host.forward(port) == local
    proxy.cut()
    await host.jobs()
    assert await through(local) == b"hello you\n"
    await host.aclose()
    with pytest.raises(OSError):  # noqa: PT011
        await through(local)
    server.close()


async def test_the_settings_of_ssh_are_respected(sshd: Sshd, tmp_path: Path, config: HostConfig) -> None:
    settings = tmp_path / "ssh_config"
    settings.write_text(
        f"Host box\n  HostName 127.0.0.1\n  Port {sshd.port}\n  User {sshd.user}\n"
        f"  IdentityFile {sshd.user_key}\n"
    )
    plain = replace(config, address="box", port=None, user=None, key=None, ssh_config=settings)
    assert await works(plain)


async def test_a_host_behind_another_is_reached_through_it(
    sshd: Sshd, tmp_path: Path, config: HostConfig, home: Path
) -> None:
    with Sshd.start(tmp_path / "jump") as jump:
        settings = tmp_path / "ssh_config"
        settings.write_text(
            f"Host jump\n  HostName 127.0.0.1\n  Port {jump.port}\n  User {jump.user}\n"
            f"  IdentityFile {jump.user_key}\n"
            f"Host box\n  HostName 127.0.0.1\n  Port {sshd.port}\n  User {sshd.user}\n"
            f"  IdentityFile {sshd.user_key}\n  ProxyJump jump\n"
        )
        behind = replace(config, address="box", port=None, user=None, key=None, ssh_config=settings)
        error = await failure_of(replace(behind, accept_new=True))
        assert "on the way" in error.message  # only what was asked for is accepted
        (home / ".ssh").mkdir(parents=True)
        (home / ".ssh" / "known_hosts").write_text(jump.known_line(jump.port))
        assert await works(behind)
        assert "Accepted publickey" in (jump.folder / "sshd.log").read_text()


async def test_the_agent_is_sent_once_and_found_again(config: HostConfig, tmp_path: Path) -> None:
    assert await works(config)
    sent = list((tmp_path / "root" / "agent").iterdir())
    assert len(sent) == 1
    stamp = sent[0].stat().st_mtime_ns
    assert await works(config)
    assert [path.stat().st_mtime_ns for path in (tmp_path / "root" / "agent").iterdir()] == [stamp]
