"""The Slurm profile on a real Slurm: results of a local run, whatever happens to jobs and nodes."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from slurm_cluster import Cluster, UnavailableError, unpack

pytestmark = pytest.mark.slurm

ROOT = Path(__file__).parents[3]
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


def prepared_folder(path: Path) -> Path:
    """A folder with a small experiment: the smoke experiment's baseline and its slow measures."""
    config = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    config |= {"experiment": "cluster", "variants": ["at"]}
    for name in ("hessian", "landscape"):
        del config["measures"][name]
    del config["measures"]["series"]["hessian"]
    # long enough for a scheduler that looks every few seconds to find the jobs running
    config["training"] |= {"epochs": 20, "snapshots": 4}
    config["measures"]["flatness"]["average"]["samples"] = 20
    config["measures"]["robustness"]["attack"]["restarts"] = 20
    path.mkdir()
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    return path


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted((directory / "results").rglob("*"))
        if path.is_file() and not {"timings", ".resume"} & set(path.parts)
    }


def command(directory: Path, profile: str, *arguments: str) -> list[str]:
    parts = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", directory]
    parts += ["--workflow-profile", ROOT / "profiles/default", "--configfile", directory / "config.yaml"]
    if profile == "slurm":
        parts += ["--profile", ROOT / "profiles/slurm", "--slurm-no-account", "--latency-wait", "5"]
        parts += ["--slurm-init-seconds-before-status-checks", "2"]
    else:
        parts += ["--cores", "2"]
    return list(map(str, [*parts, *arguments]))


class Run:
    """Snakemake through Slurm in a folder, with its output in a log."""

    def __init__(self, cluster: Cluster, directory: Path):
        self.cluster, self.directory, self.logs = cluster, directory, []
        self.environment = os.environ | {"PATH": f"{cluster.bin}:{os.environ['PATH']}"}
        self.process = None

    def start(self, *arguments: str) -> None:
        self.logs.append(self.directory / f"snakemake-{len(self.logs)}.log")
        with open(self.logs[-1], "w") as file:
            self.process = subprocess.Popen(
                command(self.directory, "slurm", *arguments, "--", TARGET),
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

    def finished(self) -> list[tuple[str, str]]:
        """Jobid and rule of each job that finished, in order."""
        return re.findall(r"Finished jobid: (\d+) \(Rule: (\w+)\)", self.log())


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    directory = prepared_folder(tmp_path_factory.mktemp("local") / "run")
    parts = command(directory, "default", "--", TARGET)
    done = subprocess.run(parts, capture_output=True, text=True, cwd=directory)
    assert done.returncode == 0, done.stderr[-3000:]
    return contents(directory)


def test_cancelled_timed_out_and_lost_jobs_are_run_again(cluster, local, tmp_path):
    """A training is cancelled; the measuring job hangs over its time limit, then loses its node."""
    run = Run(cluster, prepared_folder(tmp_path / "run"))
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


def test_snakemake_killed_and_started_again(cluster, local, tmp_path):
    """Its Slurm jobs go on as orphans; the second Snakemake waits for their locks."""
    run = Run(cluster, prepared_folder(tmp_path / "run"))
    run.start()
    run.wait_for("train_variant")
    time.sleep(1)
    run.process.kill()
    run.process.wait()
    unlocking = command(run.directory, "slurm", "--unlock")
    subprocess.run(unlocking, check=True, capture_output=True, cwd=run.directory, env=run.environment)
    run.start()
    run.wait_for("measure_network")
    finished = {rule for _, rule in run.finished()}
    run.process.kill()
    run.process.wait()
    subprocess.run(unlocking, check=True, capture_output=True, cwd=run.directory, env=run.environment)
    run.start()
    run.finish()
    rules = [rule for _, rule in run.finished()]
    assert "train_variant" in finished
    again = [rule for rule in finished if rules.count(rule) > 1]
    assert not again, f"finished and redone: {again}"
    assert contents(run.directory) == local
