"""The whole workflow on the smoke experiment, once, and what it must leave behind."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VARIANTS = ["at", "trades-6", "unlabeled", "at-scaled-2"]


def snakemake(directory: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile"]
    command += ["--workflow-profile", ROOT / "profiles/default", "--directory", directory]
    command += ["--configfile", ROOT / "config/smoke.yaml", "--cores", "2", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=directory)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("smoke")
    done = snakemake(directory)
    assert done.returncode == 0, done.stderr[-4000:]
    return directory


def rows(path: Path) -> list[dict]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_every_variant_is_measured_at_both_checkpoints(run):
    table = rows(run / "results/smoke/models.csv")
    assert [(row["variant"], row["checkpoint"]) for row in table] == [
        (variant, checkpoint) for variant in sorted(VARIANTS) for checkpoint in ("last", "best")
    ]
    measured = ["test_err", "test_rloss_pgd", "test_rerr_aa", "train_rloss_pgd", "avg_flatness_rloss"]
    measured += ["worst_flatness_rloss", "train_worst_flatness_ce"]
    for row in table:
        assert all(math.isfinite(float(row[column])) for column in measured)
        # the radius ablation is of the last checkpoint; another with the same weights shares it
        if row["checkpoint"] == "last":
            assert math.isfinite(float(row["avg_flatness_rloss_0.25"]))
        assert float(row["test_rloss_pgd"]) >= 0
        assert 0 <= float(row["test_rerr_aa"]) <= 100


def test_tables_agree_with_the_measures_files(run):
    for row in rows(run / "results/smoke/models.csv"):
        path = run / f"results/smoke/{row['variant']}/seed-0/measures/{row['checkpoint']}/flatness.json"
        content = json.loads(path.read_text())
        assert content["checkpoint"]["variant"] == row["variant"]
        assert float(row["avg_flatness_rloss"]) == content["values"]["avg_flatness_rloss"]


def test_history_has_a_row_per_epoch(run):
    table = rows(run / "results/smoke/history.csv")
    assert [(row["variant"], int(row["epoch"])) for row in table] == [
        (variant, epoch) for variant in sorted(VARIANTS[:3]) for epoch in range(3)
    ]


def test_series_has_a_row_per_snapshot(run):
    table = rows(run / "results/smoke/series.csv")
    assert [(row["variant"], int(row["epoch"])) for row in table] == [
        (variant, epoch) for variant in ("at", "trades-6") for epoch in range(3)
    ]
    assert all(bool(row["hessian_max"]) == (row["variant"] == "at") for row in table)


def test_every_figure_and_table_is_written(run):
    for folder, ending in (("figures", "pdf"), ("figures", "png"), ("paper_tables", "csv")):
        wanted = {path.stem for path in (ROOT / folder).glob("*.py")}
        made = {path.stem for path in (run / folder / "smoke").glob(f"*.{ending}")}
        assert wanted
        assert made >= wanted


def test_every_job_leaves_a_log(run):
    for name in ("train", "robustness", "flatness"):
        assert (run / f"logs/smoke/at/seed-0/{name}.log").exists()


def test_a_second_run_does_nothing(run):
    done = snakemake(run, "--dry-run")
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr
