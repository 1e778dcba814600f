"""Tests that take minutes: `make torture`. Their files are not named test_*, so that `make test` has none."""

from tests.fixtures.workspace_hosts import loop_host
from tests.servers.hosts import sshd

__all__ = ["loop_host", "sshd"]
