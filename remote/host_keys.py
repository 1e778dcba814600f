"""Whose host key is trusted: known_hosts, strictly. Unknown and changed are told apart, with fingerprints."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncssh

from remote.errors import HostError, HostKeyChanged, HostKeyUnknown

SYSTEM_FILE = Path("/etc/ssh/ssh_known_hosts")
ASK_TIMEOUT_S = 5.0


class HostKeys(asyncssh.SSHClient):
    """Looks into known_hosts for asyncssh, and remembers what it saw, to tell unknown from changed.

    Trusted are the keys of `file`, to which new ones are added, and those that `ssh` itself trusts.
    """

    def __init__(self, file: Path | None, accept_new: bool) -> None:
        users = Path("~/.ssh/known_hosts").expanduser()
        self.file = file or users
        places = dict.fromkeys((self.file, users, SYSTEM_FILE))
        self.texts = {path: path.read_text(errors="replace") for path in places if path.is_file()}
        self.accept_new = accept_new
        self.known_from: list[str] = []
        self.place = ""
        self.known: list[asyncssh.SSHKey] = []
        self.offered: asyncssh.SSHKey | None = None

    def lookup(self, host: str, addr: str, port: int | None) -> object:
        self.place = f"[{host}]:{port}" if port else host
        found: list[list[Any]] = [[] for _ in range(7)]  # keys, authorities, revoked, then X.509
        for path, text in self.texts.items():
            try:
                matches = asyncssh.import_known_hosts(text).match(host, addr, port)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            for together, match in zip(found, matches, strict=True):
                together.extend(match)
            if matches[0]:
                self.known_from.append(str(path))
        self.known = found[0]
        return found

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Asked only when the key is not among the known ones."""
        self.offered = key
        return self.accept_new and not self.known

    def remember(self) -> None:
        """Append a key that was accepted as new, after the server proved that it has it."""
        if self.offered is None:
            return
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        line = f"{self.place} {self.offered.export_public_key('openssh').decode().strip()}\n"
        before = self.texts.get(self.file, "")
        with self.file.open("a") as file:
            file.write(line if not before or before.endswith("\n") else "\n" + line)

    async def are_why(self, error: Exception, where: str, options: dict[str, Any]) -> bool:
        """Did the connection fail for its host key? A server that has no key of the known kinds any more
        ends the connection without a reason: then ask it which it has."""
        if isinstance(error, asyncssh.HostKeyNotVerifiable):
            return True
        broke = asyncssh.KeyExchangeFailed | asyncssh.ConnectionLost | ConnectionError
        if not self.known or not isinstance(error, broke):
            return False
        kinds = [kind.decode() for key in self.known for kind in key.sig_algorithms]
        for wanted in ({"server_host_key_algs": kinds}, {}):
            with suppress(OSError, asyncssh.Error):  # a time-out is an OSError
                async with asyncio.timeout(ASK_TIMEOUT_S):
                    self.offered = await asyncssh.get_server_host_key(where, **{**options, **wanted})
                    return self.offered not in self.known
        return False

    def refusal(self, name: str, error: Exception) -> HostError:
        if self.offered is None:
            remedy = "Connect to it once with ssh, and compare its fingerprint."
            return HostError(name, "check the host key", f"of a host on the way there: {error}", remedy)
        fingerprint = self.offered.get_fingerprint()
        if self.known:
            known = tuple(key.get_fingerprint() for key in self.known)
            return HostKeyChanged(
                name,
                f"{self.place} showed another host key than the known one.\n"
                f"  known: {', '.join(known)}\n  shown: {fingerprint}",
                f"If the host was reinstalled, compare the shown fingerprint on the host itself, then remove "
                f"its lines from {' and '.join(self.known_from)}. If not, somebody may be in between: do not connect.",
                fingerprint,
                known,
            )
        return HostKeyUnknown(
            name,
            f"the host key of {self.place} is not known. It showed {fingerprint}",
            "Compare that fingerprint with the host's own (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), "
            f"then accept it (--accept-new): it is added to {self.file}.",
            fingerprint,
        )
