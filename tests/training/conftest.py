"""The fixtures of `tests/fixtures/` and `tests/servers/`, for the tests of this folder."""

from tests.fixtures.small_model import small_adapter, small_model
from tests.fixtures.workspace_hosts import host_name, loop_host
from tests.servers.hosts import sshd

__all__ = ["host_name", "loop_host", "small_adapter", "small_model", "sshd"]
