"""The fixtures of `tests/servers/hosts.py`, for the tests of this folder."""

from tests.servers.hosts import host, place, proxy, sshd

__all__ = ["host", "place", "proxy", "sshd"]
