"""The published experiment through Snakemake, without torch, and what a change redraws."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIGURE, CLAIMS = "figures/paper/rloss_vs_average_flatness.pdf", "paper_tables/paper/claims.csv"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of what the published experiment needs, so that its files can be changed."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("config", "figures", "paper_tables", "workflow", "profiles"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("paper", "digits", "smoke"))
    shutil.copy(ROOT / "Snakefile", folder)
    (folder / "torch.py").write_text("raise ImportError('no torch here')\n")
    snakemake(folder)
    return folder


def snakemake(folder: Path, *arguments: str) -> str:
    options = ["--configfile", "config/published.yaml", "--cores", "2", *arguments, "--", FIGURE, CLAIMS]
    path = os.pathsep.join((str(folder), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *options],
        cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def test_the_printed_numbers_need_no_torch(checkout):
    assert (checkout / FIGURE).stat().st_size > 0
    with open(checkout / CLAIMS, newline="") as file:
        verdicts = {row["claim"]: row["verdict"] for row in csv.DictReader(file)}
    assert verdicts["flat-is-robust"] == "holds in the printed numbers"


@pytest.mark.parametrize(
    ("path", "redrawn"),
    [
        ("figures/rloss_vs_average_flatness.py", {FIGURE}),
        ("config/claims.yaml", {CLAIMS}),
        ("config/variants.yaml", {FIGURE, CLAIMS}),
    ],
)
def test_a_change_redraws_what_reads_the_file(checkout, path, redrawn):
    path = checkout / path
    before, times = path.read_text(), (path.stat().st_atime, path.stat().st_mtime)
    path.write_text(before + "\n# changed\n")
    planned = [line.strip() for line in snakemake(checkout, "--dry-run").splitlines()]
    path.write_text(before)
    os.utime(path, times)
    outputs = [line.removeprefix("output: ").split(",")[0] for line in planned if line.startswith("output: ")]
    assert {*outputs} == redrawn
