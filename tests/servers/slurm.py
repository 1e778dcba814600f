"""A real Slurm on loopback for tests: munged, slurmctld and one slurmd with many CPUs and two GPUs by name.

`with SlurmCluster.start(folder) as cluster:` gives one; `cluster.conf` is what SLURM_CONF must name.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.servers.sshd import free_port

CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={ctld_port}
SlurmdPort={d_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
KillWait=2
MinJobAge=5
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={d_port} CPUs=32 RealMemory=1000 Gres=gpu:2
PartitionName=main Nodes=n1 Default=YES MaxTime=INFINITE State=UP
"""


@dataclass
class SlurmCluster:
    folder: Path
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list, repr=False)

    @property
    def conf(self) -> Path:
        return self.folder / "slurm.conf"

    @classmethod
    def start(cls, folder: Path) -> Self:
        folder.mkdir(parents=True)
        cluster = cls(folder)
        for name in ("state", "spool"):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        folder.chmod(0o755)
        conf = CONF.format(
            host=socket.gethostname().partition(".")[0],
            user=getpass.getuser(),
            folder=folder,
            ctld_port=free_port(),
            d_port=free_port(),
        )
        cluster.conf.write_text(conf)
        # A card is any character device here: nothing constrains the jobs to them.
        (folder / "gres.conf").write_text(
            "".join(f"Name=gpu File={file}\n" for file in ("/dev/null", "/dev/zero"))
        )
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        cluster._run(
            "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket",
            f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/munge.seed",
            f"--log-file={folder}/munged.log",
        )  # fmt: skip
        cluster._until(lambda: (folder / "munge.socket").exists())
        cluster._run("slurmctld", "-D", "-i", "-f", str(cluster.conf))
        cluster._run("slurmd", "-D", "-N", "n1", "-f", str(cluster.conf))
        cluster._until(lambda: "idle" in cluster.ask("sinfo", "--noheader", "--format=%t"))
        return cluster

    def ask(self, *argv: str) -> str:
        environment = {**os.environ, "SLURM_CONF": str(self.conf)}
        return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False).stdout

    def _run(self, name: str, *arguments: str) -> None:
        program = shutil.which(name) or f"/usr/sbin/{name}"
        with (self.folder / f"{name}.out").open("ab") as out:
            environment = {**os.environ, "SLURM_CONF": str(self.conf)}
            self._processes.append(
                subprocess.Popen([program, *arguments], stdout=out, stderr=out, env=environment)
            )

    def _until(self, holds: object) -> None:
        deadline = time.monotonic() + 30
        while not holds():  # type: ignore[operator]
            dead = [process.args for process in self._processes if process.poll() is not None]
            if dead or time.monotonic() > deadline:
                logs = {log.name: log.read_text()[-1500:] for log in self.folder.glob("*.[lo][ou][gt]")}
                raise RuntimeError(f"Slurm did not start: {dead} {logs}")
            time.sleep(0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.ask("scancel", f"--user={getpass.getuser()}")
        for process in reversed(self._processes):
            process.terminate()
            process.wait(20)
