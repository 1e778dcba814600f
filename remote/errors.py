"""The errors of this floor: each names the host, the step, what happened and what helps."""

from __future__ import annotations


class HostError(Exception):
    """Something asked of a host did not happen.

    host: the name under which the user knows the host. step: what was being done (`connect`, `log in`,
    `start the agent`, `launch`, ...). message: what happened. remedy: what the user can do about it.
    """

    def __init__(self, host: str, step: str, message: str, remedy: str = "") -> None:
        self.host = host
        self.step = step
        self.message = message
        self.remedy = remedy
        super().__init__(host, step, message, remedy)

    def __str__(self) -> str:
        text = f"{self.host}: {self.step}: {self.message}"
        return f"{text}\n{self.remedy}" if self.remedy else text


class LinkLost(HostError):
    """The link to the host broke. What runs on the host goes on; asking again may work."""


class HostKeyUnknown(HostError):
    """No key of this host is known yet. `fingerprint` is what it showed, to be compared by a person."""

    def __init__(self, host: str, message: str, remedy: str, fingerprint: str) -> None:
        super().__init__(host, "check the host key", message, remedy)
        self.fingerprint = fingerprint


class HostKeyChanged(HostError):
    """The host showed another key than the known one: reinstalled, or not the host it says it is."""

    def __init__(
        self, host: str, message: str, remedy: str, fingerprint: str, known: tuple[str, ...]
    ) -> None:
        super().__init__(host, "check the host key", message, remedy)
        self.fingerprint = fingerprint
        self.known = known


class NoSuchJob(HostError):
    """The host has no folder for this job id."""


class Refused(HostError):
    """The agent on the host could not do what was asked. `kind` is a word that code may look at."""

    def __init__(self, host: str, step: str, message: str, remedy: str, kind: str) -> None:
        super().__init__(host, step, message, remedy)
        self.kind = kind
