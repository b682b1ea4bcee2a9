"""The Slurm profile on a real Slurm: results of a local run, whatever happens to jobs and nodes."""

import contextlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from runs import ENVIRONMENT, ROOT, command, contents, prepared_folder, snakemake, succeeded
from slurm_cluster import Cluster, UnavailableError, unpack

pytestmark = pytest.mark.slurm

TARGET = "results/cluster/models.csv"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    try:
        unpack(folder / "prefix")
        made = Cluster(folder)
        made.start()
    except UnavailableError as reason:
        pytest.skip(f"no Slurm: {reason}")
    yield made
    made.stop()


def experiment() -> dict:
    """The smoke experiment's baseline and its slow measures."""
    config = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    config |= {"experiment": "cluster", "variants": ["at"]}
    for name in ("hessian", "landscape"):
        del config["measures"][name]
    del config["measures"]["series"]["hessian"]
    # long enough for a scheduler that looks every few seconds to find the jobs running
    config["training"] |= {"epochs": 20, "snapshots": 4}
    config["measures"]["flatness"]["average"]["samples"] = 20
    config["measures"]["robustness"]["attack"]["restarts"] = 20
    return config


def slurm(*arguments: str) -> list[str]:
    """The command line that runs jobs through Slurm."""
    options = ["--profile", ROOT / "profiles/slurm", "--slurm-no-account", "--latency-wait", "5"]
    options += ["--slurm-init-seconds-before-status-checks", "2"]
    return command(*map(str, options), *arguments)


class Run:
    """Snakemake through Slurm in a folder, with its output in a log."""

    def __init__(self, cluster: Cluster, directory: Path):
        self.cluster, self.directory, self.logs = cluster, directory, []
        self.environment = ENVIRONMENT | {"PATH": f"{cluster.bin}:{os.environ['PATH']}"}
        self.process = None

    def start(self, *arguments: str) -> None:
        self.logs.append(self.directory / f"snakemake-{len(self.logs)}.log")
        with open(self.logs[-1], "w") as file:
            self.process = subprocess.Popen(
                slurm(*arguments, "--", TARGET),
                stdout=file, stderr=file, cwd=self.directory, env=self.environment, start_new_session=True,
            )  # fmt: skip

    def wait_for(self, rule: str, other_than: str = "", seconds: float = 300) -> str:
        """Wait until a job of `rule` runs; its Slurm id."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            job = self.cluster.running(rule)
            if job and job != other_than:
                return job
            time.sleep(0.3)
        raise AssertionError(f"no job of {rule} came to run\n{self.log()[-3000:]}")

    def finish(self, seconds: float = 900) -> None:
        try:
            status = self.process.wait(seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        assert status == 0, self.log()[-4000:]

    def log(self) -> str:
        return "".join(path.read_text() for path in self.logs)


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    directory = prepared_folder(tmp_path_factory.mktemp("local") / "run", experiment())
    succeeded(snakemake(directory, "--", TARGET))
    return contents(directory)


def test_cancelled_timed_out_and_lost_jobs_are_run_again(cluster, local, tmp_path):
    """A training is cancelled; the measuring job hangs over its time limit, then loses its node."""
    run = Run(cluster, prepared_folder(tmp_path / "run", experiment()))
    run.start()
    cluster.client("scancel", run.wait_for("train_variant"))
    job = run.wait_for("measure_network")
    # stopped, for Slurm looks at the limits every half minute only
    cluster.client("scancel", "--full", "--signal=STOP", job)
    cluster.client("scontrol", "update", f"jobid={job}", "timelimit=0:01")
    node = cluster.node_of(run.wait_for("measure_network", other_than=job))
    cluster.client("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    try:
        time.sleep(10)
    finally:
        cluster.client("scontrol", "update", f"nodename={node}", "state=resume")
    run.finish()
    assert {"CANCELLED", "TIMEOUT", "NODE_FAIL"} <= set(re.findall(r"SLURM status is: '(\w+)'", run.log()))
    assert contents(run.directory) == local
