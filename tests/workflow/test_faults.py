"""Kills, terminations and full disks: a resumed run has the results of an undisturbed one."""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from runs import contents

from robust_flatness.experiment import load_experiment
from robust_flatness.files import canonical_json
from robust_flatness.tables.records import read_network
from robust_flatness.workflow import measuring_job

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]
KILLS = 10
TARGET = "results/faults/models.csv"
DATA = "results/faults/data/seed-0.safetensors"
COMMANDS = {"train": "train", "measure": "measure-network"}


def experiment() -> dict:
    """One variant, all measures, enough epochs to be killed between."""
    config = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    config |= {"experiment": "faults", "variants": ["at"]}
    config["training"] |= {"epochs": 8, "snapshots": 4}
    measures = config["measures"]
    measures["hessian"]["variants"] = measures["series"]["variants"] = ["at"]
    del measures["series"]["hessian"]
    return config


def command(directory: Path, *arguments: str, cores: int = 2) -> list[str]:
    parts = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile"]
    parts += ["--workflow-profile", ROOT / "profiles/default", "--directory", directory, "--cores", cores]
    parts += ["--configfile", directory / "config.yaml", *arguments]
    return list(map(str, parts))


def prepared_folder(path: Path, config: dict | None = None) -> Path:
    path.mkdir()
    (path / "config.yaml").write_text(yaml.safe_dump(config or experiment()))
    return path


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """An undisturbed run: its folder and how long it took."""
    directory = prepared_folder(tmp_path_factory.mktemp("reference") / "run")
    start = time.monotonic()
    done = subprocess.run(command(directory, "--", TARGET), capture_output=True, text=True, cwd=directory)
    assert done.returncode == 0, done.stderr[-3000:]
    return directory, time.monotonic() - start


def finished_rules(log: Path) -> list[str]:
    return re.findall(r"Finished jobid: \d+ \(Rule: (\w+)\)", log.read_text())


def start(directory: Path, log: Path) -> subprocess.Popen:
    with open(log, "w") as file:
        return subprocess.Popen(
            command(directory, "--", TARGET), stdout=file, stderr=file, cwd=directory, start_new_session=True
        )


def unlock(directory: Path) -> None:
    subprocess.run(command(directory, "--unlock"), check=True, capture_output=True, cwd=directory)


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
            directory, finished = prepared_folder(tmp_path / f"run-{completed}"), []
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
                unlock(directory)
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
        subprocess.run(command(directory, cores=cores), check=True, capture_output=True, cwd=directory)
        found.append(contents(directory, "figures", "paper_tables"))
    first, second = found
    kinds = {Path(name).suffix for name in first}
    assert {".safetensors", ".csv", ".pdf", ".png", ".md"} <= kinds
    assert first.keys() == second.keys()
    assert not [name for name in first if first[name] != second[name]]


# Single jobs.


def job(step: str, undisturbed: Path, directory: Path) -> list[str]:
    """Return the command line of a job that writes to `directory` from the outputs of an undisturbed run."""
    run = undisturbed / "results/faults/at/seed-0"
    loaded = load_experiment(experiment(), ROOT / "config/variants.yaml")
    if step == "train":
        spec = loaded.train_job("at", 0).json_text()
    else:
        spec = canonical_json(measuring_job(loaded, "at"))
        directory.mkdir(exist_ok=True)
        for name in ("checkpoints", "history.csv"):
            if not (directory / name).exists():
                (directory / name).symlink_to(run / name)
    parts = [sys.executable, "-m", "robust_flatness", COMMANDS[step], "--spec", spec]
    return list(map(str, [*parts, "--data", undisturbed / DATA, "--directory", directory]))


def run_job(undisturbed: Path, parts: list[str], check: bool = False) -> subprocess.CompletedProcess:
    """Run a job where the undisturbed run was: results name the commit of that folder, if any."""
    return subprocess.run(parts, capture_output=True, text=True, check=check, cwd=undisturbed)


def outputs(step: str, directory: Path) -> dict[str, bytes]:
    patterns = {
        "train": ["history.csv", "checkpoints/*.safetensors"],
        "measure": ["records.csv", "examples.csv"],
    }
    found = {path for pattern in patterns[step] for path in directory.glob(pattern)}
    return {str(path.relative_to(directory)): path.read_bytes() for path in sorted(found)}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("step", COMMANDS)
def test_a_stopped_job_resumes_to_the_same_bytes(reference, tmp_path, step, number):
    undisturbed, _ = reference
    rng = random.Random(number)
    start = time.monotonic()
    run_job(undisturbed, job(step, undisturbed, tmp_path / "timing"), check=True)
    duration = time.monotonic() - start
    for _ in range(3):
        process = subprocess.Popen(
            job(step, undisturbed, tmp_path / "out"), stdout=subprocess.DEVNULL, cwd=undisturbed
        )
        try:
            process.wait(rng.uniform(0.4, 0.95) * duration)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            process.wait()
    done = run_job(undisturbed, job(step, undisturbed, tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert outputs(step, tmp_path / "out") == outputs(step, undisturbed / "results/faults/at/seed-0")
    leftovers = [path for path in (tmp_path / "out").rglob("*.tmp") if path.is_file()]
    assert not leftovers


@pytest.fixture
def small_disk(tmp_path):
    """A file system that can be resized: `resize(kilobytes)`; unmounted at the end."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", folder]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small tmpfs cannot be mounted here")

    def resize(kilobytes: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", folder], check=True)

    try:
        yield folder, resize
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("step", COMMANDS)
def test_a_full_disk_stops_a_job_which_resumes_with_more_space(reference, small_disk, step):
    undisturbed, _ = reference
    folder, resize = small_disk
    expected = outputs(step, undisturbed / "results/faults/at/seed-0")
    needed = sum(map(len, expected.values())) // 1024
    failures = 0
    for kilobytes in (8, max(8, needed // 3 + 4), 20 * needed + 4000):
        resize(kilobytes)
        done = run_job(undisturbed, job(step, undisturbed, folder / "out"))
        made = outputs(step, folder / "out")
        # whatever has its final name is whole
        assert all(expected[name] == content for name, content in made.items())
        if done.returncode:
            failures += 1
            assert "No space left on device" in done.stderr
            assert "Traceback" not in done.stderr
    assert failures
    assert done.returncode == 0, done.stderr
    assert made == expected
