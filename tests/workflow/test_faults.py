"""Kills and terminations of the workflow: a resumed run has the results of an undisturbed one."""

import contextlib
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from runs import ENVIRONMENT, ROOT, command, contents, prepared_folder, snakemake, succeeded

from robust_flatness.tables.records import read_network

pytestmark = pytest.mark.faults

KILLS = 10
TARGET = "results/faults/models.csv"


def experiment() -> dict:
    """One variant, all measures, enough epochs to be killed between."""
    config = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    config |= {"experiment": "faults", "variants": ["at"]}
    config["training"] |= {"epochs": 8, "snapshots": 4}
    measures = config["measures"]
    measures["hessian"]["variants"] = measures["series"]["variants"] = ["at"]
    del measures["series"]["hessian"]
    return config


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """An undisturbed run: its folder and how long it took."""
    directory = prepared_folder(tmp_path_factory.mktemp("reference") / "run", experiment())
    start = time.monotonic()
    succeeded(snakemake(directory, "--", TARGET))
    return directory, time.monotonic() - start


def finished_rules(log: Path) -> list[str]:
    return re.findall(r"Finished jobid: \d+ \(Rule: (\w+)\)", log.read_text())


def start(directory: Path, log: Path) -> subprocess.Popen:
    with open(log, "w") as file:
        options = {"stdout": file, "stderr": file, "cwd": directory, "env": ENVIRONMENT}
        return subprocess.Popen(command("--", TARGET), start_new_session=True, **options)


def stop(process: subprocess.Popen, how: str) -> None:
    if how == "kill all":
        os.killpg(process.pid, signal.SIGKILL)
    elif how == "kill snakemake":  # its jobs go on, as orphans
        process.kill()
    else:
        process.terminate()
    process.wait()


def test_kills_at_random_moments(reference, tmp_path):
    """Ten stops, each followed by --unlock and the same command again."""
    undisturbed, duration = reference
    rng = random.Random(0)
    stops, completed, sessions = 0, 0, []
    try:
        while stops < KILLS:
            directory, finished = prepared_folder(tmp_path / f"run-{completed}", experiment()), []
            while True:
                log = tmp_path / f"{len(sessions)}.log"
                process = start(directory, log)
                sessions.append(process.pid)
                try:
                    patience = rng.uniform(0.05, 0.5) if stops < KILLS else 20
                    process.wait(patience * duration)
                    finished += finished_rules(log)
                    break
                except subprocess.TimeoutExpired:
                    assert stops < KILLS, "the run does not come to its end"
                stop(process, rng.choice(["kill all", "kill all", "kill snakemake", "terminate"]))
                stops += 1
                finished += finished_rules(log)
                for path in directory.glob("results/*/*/*/records.csv"):
                    read_network(path)  # no half-written file has a final name
                succeeded(snakemake(directory, "--unlock"))
            assert process.returncode == 0, log.read_text()[-3000:]
            assert "collect" in finished
            again = [rule for rule in set(finished) if finished.count(rule) > 1]
            assert not again, f"finished and redone: {again}"
            assert contents(directory) == contents(undisturbed)
            completed += 1
    finally:
        for session in sessions:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(session, signal.SIGKILL)


def test_two_runs_give_the_same_bytes(tmp_path):
    """Checkpoints, tables and figures of the smoke experiment, with two cores and with one."""
    config = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    found = []
    for cores in (2, 1):
        directory = prepared_folder(tmp_path / f"{cores}-cores", config)
        succeeded(snakemake(directory, cores=cores))
        found.append(contents(directory, "figures", "paper_tables"))
    first, second = found
    kinds = {Path(name).suffix for name in first}
    assert {".safetensors", ".csv", ".pdf", ".png", ".md"} <= kinds
    assert first.keys() == second.keys()
    assert not [name for name in first if first[name] != second[name]]
