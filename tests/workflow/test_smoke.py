"""The whole workflow on the smoke experiment, once, and what it must leave behind."""

import math
from pathlib import Path

import pytest
from runs import ROOT, rows, snakemake, succeeded

from robust_flatness.run.verify import sample_files, verify_network

VARIANTS = ["at", "trades-6", "unlabeled", "at-scaled-2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("smoke")
    succeeded(snakemake(directory, config=ROOT / "config/smoke.yaml"))
    return directory


def test_every_variant_is_measured_at_both_checkpoints(run):
    table = rows(run / "results/smoke/models.csv")
    wanted = [(variant, checkpoint) for variant in sorted(VARIANTS) for checkpoint in ("last", "best")]
    assert [(row["variant"], row["checkpoint"]) for row in table] == wanted
    measured = ["test_err", "test_rloss_pgd", "test_rerr_aa", "train_rloss_pgd", "avg_flatness_rloss"]
    measured += ["worst_flatness_rloss", "train_worst_flatness_ce"]
    for row in table:
        assert all(math.isfinite(float(row[column])) for column in measured)
        # the radius ablation is of the last checkpoint; another with the same weights shares it
        if row["checkpoint"] == "last":
            assert math.isfinite(float(row["avg_flatness_rloss_0.25"]))
        assert float(row["test_rloss_pgd"]) >= 0
        assert 0 <= float(row["test_rerr_aa"]) <= 100


def test_every_snapshot_is_in_the_series(run):
    table = [row for row in rows(run / "results/smoke/records.csv") if row["measure"] == "series"]
    snapshots = {(row["variant"], row["checkpoint"], int(row["epoch"])) for row in table}
    variants = ("at", "trades-6")
    assert snapshots == {(name, f"epoch-{epoch:03d}", epoch) for name in variants for epoch in range(3)}
    assert {row["variant"] for row in table if row["metric"] == "hessian_max"} == {"at"}


def test_every_figure_and_table_is_written(run):
    for folder, ending in (("figures", "pdf"), ("figures", "png"), ("paper_tables", "csv")):
        wanted = {path.stem for path in (ROOT / folder).glob("*.py")}
        made = {path.stem for path in (run / folder / "smoke").glob(f"*.{ending}")}
        assert wanted
        assert made >= wanted
    assert "\n  robust-overfitting " in (run / "report/smoke/opening.rst").read_text()


def test_a_second_run_does_nothing(run):
    assert "Nothing to be done" in succeeded(snakemake(run, "--dry-run", config=ROOT / "config/smoke.yaml"))


def test_a_measurement_is_repeated_identically(run):
    """In another process than the one that measured, the series included."""
    assert verify_network(run / "results/smoke/trades-6/seed-0/records.csv")[1].endswith("identical")
    assert len(sample_files(run / "results/smoke", None, 0)) == len(VARIANTS)
