"""The fixtures of `tests/servers/hosts.py`, for the tests of this folder."""

from tests.servers.hosts import cluster, host, place, proxy, sshd

__all__ = ["cluster", "host", "place", "proxy", "sshd"]
