"""Hosts and jobs: run, follow, copy, watch GPUs. Knows nothing of what the jobs are for."""

from remote.errors import HostError, HostKeyChanged, HostKeyUnknown, LinkLost, NoSuchJob, Refused
from remote.host import (
    CPU_INDEX,
    ENDED,
    Chunk,
    Completed,
    GpuDetail,
    GpuProcess,
    Host,
    HostConfig,
    JobState,
    JobStatus,
    Launch,
    Probe,
    Progress,
    Reading,
    Slurm,
    Stream,
    Transfer,
)


def open_host(config: HostConfig) -> Host:
    """The host of a configuration. Nothing is connected before the first question is asked."""
    if config.kind == "local":
        from remote.local import local_host

        return local_host(config)
    from remote.ssh import ssh_host

    return ssh_host(config)


__all__ = [
    "CPU_INDEX",
    "ENDED",
    "Chunk",
    "Completed",
    "GpuDetail",
    "GpuProcess",
    "Host",
    "HostConfig",
    "HostError",
    "HostKeyChanged",
    "HostKeyUnknown",
    "JobState",
    "JobStatus",
    "Launch",
    "LinkLost",
    "NoSuchJob",
    "Probe",
    "Progress",
    "Reading",
    "Refused",
    "Slurm",
    "Stream",
    "Transfer",
    "open_host",
]
