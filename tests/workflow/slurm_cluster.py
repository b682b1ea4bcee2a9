"""A real Slurm of two nodes on this machine, on the loopback: Debian's packages, unpacked into a folder and
not installed, so that no other `snakemake` call finds Slurm's clients."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PACKAGES = ("munge", "libmunge2", "slurm-client", "slurm-wlm-basic-plugins", "slurmctld", "slurmd")
COMMANDS = ("sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo", "sacct")
NODES = ("node1", "node2")


class UnavailableError(Exception):
    """No Slurm can be had here; the message says why."""


def unpack(prefix: Path) -> None:
    """Slurm's and munge's packages with what they need, unpacked to `prefix`."""
    if os.geteuid() != 0:
        raise UnavailableError("needs root, to start Slurm's daemons")
    for tool in ("apt-get", "dpkg", "apt-cache"):
        if shutil.which(tool) is None:
            raise UnavailableError(f"needs Debian's packages; there is no {tool} here")
    downloads = prefix.parent / "packages"
    downloads.mkdir(parents=True)
    command = ["apt-get", "install", "--simulate", "--no-install-recommends", *PACKAGES]
    simulated = _run(command)
    if simulated.returncode:  # a machine that never asked for its list of packages
        _run(["apt-get", "update"])
        simulated = _run(command)
    needed = [line.split()[1] for line in simulated.stdout.splitlines() if line.startswith("Inst ")]
    got = _run(["apt-get", "download", *dict.fromkeys((*PACKAGES, *needed))], cwd=downloads)
    if got.returncode:
        raise UnavailableError(f"the packages cannot be downloaded: {got.stderr.strip()[-300:]}")
    for package in downloads.glob("*.deb"):
        subprocess.run(["dpkg", "--extract", package, prefix], check=True)


def _run(command: list[str], **options) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Cluster:
    """munged, slurmctld and a slurmd per node, from `start` to `stop`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.prefix = folder / "prefix"
        self.bin = folder / "bin"
        self.libraries = next(self.prefix.glob("usr/lib/*/slurm-wlm"))
        self.environment = os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "LD_LIBRARY_PATH": f"{self.libraries.parent}:{self.libraries}",
        }
        self.daemons: list[subprocess.Popen] = []

    def start(self) -> None:
        for name in ("state", "bin", *(f"spool/{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        (self.folder / "slurm.conf").write_text(self._configuration())
        for command in COMMANDS:
            # Slurm's variables are dropped inside a job: each command brings its own.
            variables = ("SLURM_CONF", "LD_LIBRARY_PATH")
            settings = " ".join(f"{name}={self.environment[name]}" for name in variables)
            path = self.bin / command
            path.write_text(f'#!/bin/sh\nexec env {settings} {self.prefix}/usr/bin/{command} "$@"\n')
            path.chmod(0o755)
        sbin, log = self.prefix / "usr/sbin", self.folder / "daemons.log"
        files = {"socket": "munge.sock", "key-file": "munge.key", "pid-file": "munged.pid"}
        files |= {"log-file": "munged.log", "seed-file": "munged.seed"}
        options = [f"--{option}={self.folder / name}" for option, name in files.items()]
        with open(log, "w") as output:
            start = {"stdout": output, "stderr": output, "env": self.environment}
            command = [sbin / "munged", "--foreground", "--force", *options]
            self.daemons.append(subprocess.Popen(command, **start))
            self._wait(lambda: (self.folder / "munge.sock").exists(), "munged")
            self.daemons.append(subprocess.Popen([sbin / "slurmctld-wlm", "-D"], **start))
            for node in NODES:
                command = [sbin / "slurmd-wlm", "-D", "-N", node, "-d", sbin / "slurmstepd-wlm"]
                self.daemons.append(subprocess.Popen(command, **start))
        states = ("sinfo", "-h", "-o", "%D %t")
        self._wait(lambda: self.client(*states).split() == ["2", "idle"], "two idle nodes")

    def stop(self) -> None:
        with contextlib.suppress(subprocess.SubprocessError):
            self.client("scancel", "--user=root")
            time.sleep(2)
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in self.daemons:
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def client(self, command: str, *arguments: str) -> str:
        done = subprocess.run(
            [self.prefix / "usr/bin" / command, *arguments],
            env=self.environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return done.stdout

    def running(self, rule: str) -> str | None:
        """The Slurm id of a running job of `rule`."""
        for line in self.client("squeue", "-h", "-t", "R", "-o", "%i %k").splitlines():
            number, _, comment = line.partition(" ")
            if f"rule_{rule}" in comment:
                return number
        return None

    def node_of(self, job: str) -> str:
        return self.client("squeue", "-h", "-j", job, "-o", "%N").strip()

    def _wait(self, ready, what: str, seconds: int = 60) -> None:
        end = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > end:
                logs = "".join(path.read_text()[-1500:] for path in self.folder.glob("*.log"))
                self.stop()
                raise UnavailableError(f"Slurm does not start: no {what} after {seconds} s\n{logs}")
            time.sleep(0.5)

    def _configuration(self) -> str:
        controller, *ports = free_ports(1 + len(NODES))
        host, folder = socket.gethostname(), self.folder
        lines = [
            f"ClusterName=test\nSlurmctldHost={host}(127.0.0.1)\nSlurmctldPort={controller}",
            "SlurmUser=root\nSlurmdUser=root\nAuthType=auth/munge",
            f"AuthInfo=socket={folder}/munge.sock\nPluginDir={self.libraries}",
            f"StateSaveLocation={folder}/state\nSlurmdSpoolDir={folder}/spool/%n",
            f"SlurmctldPidFile={folder}/slurmctld.pid\nSlurmdPidFile={folder}/slurmd-%n.pid",
            f"SlurmctldLogFile={folder}/slurmctld.log\nSlurmdLogFile={folder}/slurmd-%n.log",
            "ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nSelectType=select/cons_tres",
            "SelectTypeParameters=CR_CPU\nSlurmdParameters=config_overrides\nReturnToService=2",
            "MpiDefault=none\nAccountingStorageType=accounting_storage/none",
            "JobAcctGatherType=jobacct_gather/none\nKillWait=2\nMinJobAge=300",
        ]
        for node, port in zip(NODES, ports, strict=True):
            place = f"NodeHostname={host} NodeAddr=127.0.0.1 Port={port}"
            lines.append(f"NodeName={node} {place} CPUs=1 RealMemory=16000")
        lines.append("PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP")
        return "\n".join(lines) + "\n"
