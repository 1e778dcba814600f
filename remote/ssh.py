"""A host over SSH: one connection, strict about host keys, and the agent sent under its own hash.

The command given to the host's shell is only the start of the agent: everything else is data.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import shlex
import socket
from contextlib import suppress
from typing import Any

import asyncssh

from remote.client import AgentHost
from remote.errors import HostError, LinkLost
from remote.host import HostConfig
from remote.host_keys import HostKeys
from remote.local import AGENT
from remote.session import Channel, Session, open_session

KEEPALIVE_S, KEEPALIVE_MISSES = 3, 3  # a dead link is noticed after 12 s
PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./\\-]+")  # needs quoting in no shell
DRIVE = re.compile(r"[A-Za-z]:/")
SESSION_REFUSED = 0xFFFFFFFF  # asyncssh's own code: the server has no such command or subsystem
CIPHERS = "^aes128-gcm@openssh.com"


class SshConnector:
    def __init__(self, config: HostConfig) -> None:
        self._config = config
        self._lock = asyncio.Lock()
        self._connection: asyncssh.SSHClientConnection | None = None
        self._forwards: dict[int, asyncssh.SSHListener] = {}
        self._agent: str | None = None  # where it lies there, once it was sent

    async def open_session(self) -> Session:
        connection = await self._connected()
        name = self._config.name
        try:
            command = await self._command(connection)
            process = await connection.create_process(command, encoding=None)
        except (asyncssh.Error, OSError) as error:
            raise LinkLost(name, "start the agent", words_of(error), "Try again.") from error

        async def end() -> int | None:
            """Closing the channel ends the agent's input, and so the agent."""
            with suppress(OSError):
                process.stdin.write_eof()
            with suppress(TimeoutError, asyncssh.Error):
                async with asyncio.timeout(3.0):
                    await process.wait_closed()
            process.close()
            return process.exit_status

        return await open_session(
            name, Channel(process.stdout, process.stdin, process.stderr, end), self._config.root
        )

    async def forward(self, port: int) -> int:
        connection = await self._connected()
        if port not in self._forwards:
            self._forwards[port] = await self._listen(connection, port, 0)
        return self._forwards[port].get_port()

    async def aclose(self) -> None:
        async with self._lock:
            await self._drop()

    async def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            with suppress(TimeoutError, asyncssh.Error, OSError):
                async with asyncio.timeout(3.0):
                    await self._connection.wait_closed()
            self._connection.abort()
            self._connection = None
            self._agent = None  # whoever cleans up there meanwhile does no harm

    async def _connected(self) -> asyncssh.SSHClientConnection:
        async with self._lock:
            if self._connection is not None and not self._connection.is_closed():
                return self._connection
            await self._drop()
            self._connection = await connect(self._config)
            for port in list(self._forwards):
                old = self._forwards.pop(port)
                old.close()
                await old.wait_closed()
                self._forwards[port] = await self._listen(self._connection, port, old.get_port())
            return self._connection

    async def _listen(
        self, connection: asyncssh.SSHClientConnection, port: int, local_port: int
    ) -> asyncssh.SSHListener:
        try:
            return await connection.forward_local_port("127.0.0.1", local_port, "127.0.0.1", port)
        except (OSError, asyncssh.Error) as error:
            raise LinkLost(
                self._config.name, f"forward port {port}", words_of(error), "Try again."
            ) from error

    async def _command(self, connection: asyncssh.SSHClientConnection) -> str:
        if self._agent is None:
            self._agent = await self._send_agent(connection)
        windows = "for_Windows" in str(connection.get_extra_info("server_version"))
        python = self._config.python or ("python" if windows else "python3")
        words = (python.replace("\\", "/") if windows else python, self._agent)
        if windows and not all(PLAIN.fullmatch(word) for word in words):
            # Its sshd, and then cmd.exe or PowerShell, each read quotes in their own way.
            odd = next(word for word in words if not PLAIN.fullmatch(word))
            remedy = "Give a path without spaces and signs (its short name is one: dir /x shows it)."
            raise HostError(
                self._config.name, "start the agent", f"a path that no shell takes: {odd}", remedy
            )
        return f"{quoted(words[0])} -I -u -X utf8 {quoted(words[1])} serve"

    async def _send_agent(self, connection: asyncssh.SSHClientConnection) -> str:
        """Put the agent under the root there, under its hash, whole or not at all. Its path for a shell."""
        code = await asyncio.to_thread(AGENT.read_bytes)
        folder = f"{from_home(self._config.root)}/agent"
        name = f"agent-{hashlib.sha256(code).hexdigest()[:16]}.py"
        sftp_folder = f"/{folder}" if DRIVE.match(folder) else folder
        path, part = f"{sftp_folder}/{name}", f"{sftp_folder}/{name}.{secrets.token_hex(4)}.part"
        try:
            async with connection.start_sftp_client() as sftp:
                if not (await sftp.exists(path) and await sftp.getsize(path) == len(code)):
                    await sftp.makedirs(sftp_folder, exist_ok=True)
                    async with sftp.open(part, "wb") as file:
                        await file.write(code)
                    try:
                        await sftp.posix_rename(part, path)
                    except asyncssh.SFTPError:  # not every server has it, and a plain one replaces nothing
                        await sftp.rename(part, path)
        except (asyncssh.Error, OSError) as error:
            raise self._why_not_sent(connection, error) from error
        return f"{folder}/{name}"

    def _why_not_sent(self, connection: asyncssh.SSHClientConnection, error: Exception) -> HostError:
        name, step = self._config.name, "send the agent"
        refused = isinstance(error, asyncssh.ChannelOpenError) and error.code == SESSION_REFUSED
        if connection.is_closed() or not (refused or isinstance(error, asyncssh.SFTPError)):
            return LinkLost(name, step, words_of(error), "Try again when the link is back.")
        remedy = f"Check the free space and the rights of the host's root folder, {self._config.root}."
        if refused:
            remedy = "Does the host's sshd have its `Subsystem sftp` line?"
        return HostError(name, step, words_of(error), remedy)


def from_home(root: str) -> str:
    """A root folder as both SFTP and a command understand it: absolute, or from the home folder."""
    plain = root.replace("\\", "/").rstrip("/")
    return "." if plain == "~" else plain.removeprefix("~/")


def quoted(word: str) -> str:
    return word if PLAIN.fullmatch(word) else shlex.quote(word)


async def connect(config: HostConfig) -> asyncssh.SSHClientConnection:
    """A connection whose host key was checked. Raises HostError; LinkLost where waiting may help."""
    name = config.name
    where = config.address or name
    keys = await asyncio.to_thread(HostKeys, config.known_hosts, config.accept_new)
    options: dict[str, Any] = {
        "client_factory": lambda: keys,
        "known_hosts": keys.lookup,
        "keepalive_interval": KEEPALIVE_S,
        "keepalive_count_max": KEEPALIVE_MISSES,
        "connect_timeout": config.connect_timeout_s,
        "login_timeout": config.connect_timeout_s * 2,
        "encryption_algs": CIPHERS,
        **port_and_settings(config),
    }
    if config.user is not None:
        options["username"] = config.user
    if config.key is not None:
        options["client_keys"] = [str(config.key.expanduser())]
    try:
        connection = await asyncssh.connect(where, **options)
    except (OSError, ValueError, asyncssh.Error) as error:  # a bad key file is a ValueError
        if await keys.are_why(error, where, port_and_settings(config)):
            raise keys.refusal(name, error) from error
        raise in_words(error, config) from error
    await asyncio.to_thread(keys.remember)
    return connection


def in_words(error: Exception, config: HostConfig) -> HostError:
    """What went wrong on the way to a host, and what helps."""
    name, where = config.name, config.address or config.name
    address = f"{where}:{config.port}" if config.port else where
    match error:
        case asyncssh.PermissionDenied():
            user = f"user {config.user}" if config.user else "the user of your SSH settings"
            key = f"key {config.key}" if config.key else "your keys"
            message = f"{address} does not let {user} in with {key}: {words_of(error)}"
            remedy = "Add the public key to ~/.ssh/authorized_keys there, or give the right `user` and `key`."
            return HostError(name, "log in", message, remedy)
        case asyncssh.KeyExchangeFailed():
            return HostError(name, "connect", words_of(error), "The host's sshd may be too old.")
        case FileNotFoundError():
            return HostError(name, "read the SSH settings", str(error), "Check the path of the key.")
        case ValueError():
            remedy = (
                "Check that file, the key and ~/.ssh/config. A key with a passphrase goes through ssh-agent."
            )
            return HostError(name, "read the SSH settings", words_of(error), remedy)
        case socket.gaierror():
            message = f"no address is known for {where}: {error.strerror}"
            remedy = "Check the address, and that you are on the right network."
        case TimeoutError():
            message = f"no answer from {address} within {config.connect_timeout_s:g} s"
            remedy = "Is the host on and in reach? Check address, port, network and firewall."
        case ConnectionRefusedError():
            message = f"{address} refused the connection"
            remedy = "Is sshd running there, on that port?"
        case _:
            message = f"{address}: {words_of(error)}"
            remedy = "Check address, port and network, then try again."
    return LinkLost(name, "connect", message, remedy)


def port_and_settings(config: HostConfig) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if config.port is not None:
        options["port"] = config.port
    if config.ssh_config is not None:
        options["config"] = [str(config.ssh_config)]
    return options


def words_of(error: Exception) -> str:
    return str(error) or type(error).__name__


def ssh_host(config: HostConfig) -> AgentHost:
    return AgentHost(config, SshConnector(config))
