"""The workflow on the smoke experiment: all results, the page, some figures and tables."""

import math
import re
from pathlib import Path

import pytest
from runs import ROOT, rows, snakemake, succeeded

from robust_flatness.run.verify import sample_files, verify_network

VARIANTS = ["at", "trades-6", "unlabeled", "at-scaled-2"]
DRAWN = {  # the other notebooks run in tests/figures
    "figures": ["robust_overfitting", "radius_ablation"],
    "paper_tables": ["claims", "correlations", "later_claims", "sharpness_comparison"],  # the page's
}
TARGETS = ["page", "report/smoke/opening.rst", *(f"figures/smoke/{name}.pdf" for name in DRAWN["figures"])]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("smoke")
    succeeded(snakemake(directory, "--", *TARGETS, config=ROOT / "config/smoke.yaml"))
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


def test_the_opening_of_the_report_lists_the_verdicts(run):
    assert "\n  robust-overfitting " in (run / "report/smoke/opening.rst").read_text()


def test_a_second_run_draws_the_others_alone(run):
    planned = succeeded(snakemake(run, "--dry-run", "--quiet", "rules", config=ROOT / "config/smoke.yaml"))
    jobs = {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", planned, re.MULTILINE)}
    figures, tables = (len([*(ROOT / folder).glob("*.py")]) - len(DRAWN[folder]) for folder in DRAWN)
    assert jobs == {"all": 1, "figure": figures, "table": tables, "total": 1 + figures + tables}


def test_a_measurement_is_repeated_identically(run):
    """In another process than the one that measured, the series included."""
    assert verify_network(run / "results/smoke/trades-6/seed-0/records.csv")[1].endswith("identical")
    assert len(sample_files(run / "results/smoke", None, 0)) == len(VARIANTS)
