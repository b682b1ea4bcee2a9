"""The published experiment through Snakemake, without torch, and what a change redraws."""

import contextlib
import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from robust_flatness.config.families import load_families

ROOT = Path(__file__).parents[2]
TARGETS = ["figures/paper/rloss_vs_average_flatness.pdf", "paper_tables/paper/claims.csv"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of what the published experiment needs, so that notebooks can be changed."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("config", "figures", "paper_tables", "workflow", "profiles"):
        ignored = shutil.ignore_patterns("paper", "digits", "smoke")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "Snakefile", folder)
    return folder


@pytest.fixture(scope="module")
def snakemake(checkout, tmp_path_factory):
    poison = tmp_path_factory.mktemp("poison")
    (poison / "torch.py").write_text("raise ImportError('no torch here')\n")

    def run(*arguments: str, config: str = "config/published.yaml") -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "snakemake", "--configfile", config, "--cores", "2", *arguments]
        path = os.pathsep.join((str(poison), os.environ.get("PYTHONPATH", "")))
        environment = {**os.environ, "PYTHONPATH": path}
        return subprocess.run(
            command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=300
        )

    return run


@pytest.fixture(scope="module")
def drawn(snakemake, checkout):
    done = snakemake("--", *TARGETS)
    assert done.returncode == 0, done.stderr[-3000:]
    return checkout


@contextlib.contextmanager
def changed(path: Path):
    """A file with a line more, for a while."""
    before, times = path.read_text(), (path.stat().st_atime, path.stat().st_mtime)
    path.write_text(before + "\n# changed\n")
    try:
        yield
    finally:
        path.write_text(before)
        os.utime(path, times)


def planned(done: subprocess.CompletedProcess) -> list[str]:
    """Outputs of the jobs of a dry run."""
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
    return [line.removeprefix("output: ").split(",")[0] for line in lines if line.startswith("output: ")]


def test_the_printed_numbers_need_no_torch(drawn):
    for target in TARGETS:
        assert (drawn / target).stat().st_size > 0
    with open(drawn / TARGETS[1], newline="") as file:
        verdicts = {row["claim"]: row["verdict"] for row in csv.DictReader(file)}
    assert verdicts["flat-is-robust"] == "holds in the printed numbers"
    assert (drawn / "results/paper/models.csv").exists()


@pytest.mark.parametrize(
    ("path", "redrawn"),
    [
        ("figures/rloss_vs_average_flatness.py", TARGETS[:1]),
        ("config/claims.yaml", TARGETS[1:]),
        ("config/families.yaml", TARGETS),
        ("config/variants.yaml", TARGETS),
    ],
)
def test_a_change_redraws_what_reads_the_file(drawn, snakemake, path, redrawn):
    with changed(drawn / path):
        assert sorted(planned(snakemake("--dry-run", "--", *TARGETS))) == sorted(redrawn)


def test_an_experiment_of_ones_own_families_draws_them(drawn, snakemake, checkout):
    (checkout / "own.yaml").write_text(
        "experiment: own\nresults_table: own.csv\nfamilies: {mine: {label: My method, color: green}}\n"
    )
    (checkout / "own.csv").write_text("variant,family,test_rloss_pgd\nat,at,1\nmy-net,mine,2\n")
    target = "figures/own/rloss_vs_average_flatness.png"
    done = snakemake("--", target, config="own.yaml")
    assert done.returncode == 0, done.stderr[-3000:]
    assert load_families(checkout / "results/own/families.yaml")["mine"].label == "My method"
    (checkout / "own.yaml").write_text((checkout / "own.yaml").read_text().replace("My method", "Mine"))
    assert target.replace("png", "pdf") in planned(snakemake("--dry-run", "--", target, config="own.yaml"))


def test_a_table_somebody_sent_is_drawn(checkout, snakemake):
    """Unknown variants are kept; a bad table ends the run with its message."""
    lines = ["variant,test_rloss_pgd,test_rerr_pgd,avg_flatness_rloss"]
    lines += [f"{slug},{1 + i},{50 + i},{i / 2}" for i, slug in enumerate(("at", "mish", "my-net", "adam"))]
    (checkout / "sent.csv").write_text("\n".join(lines) + "\n")
    (checkout / "sent.yaml").write_text("experiment: sent\nresults_table: sent.csv\n")
    target = "figures/sent/rloss_vs_average_flatness.png"
    done = snakemake("--", target, config="sent.yaml")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (checkout / target).exists()

    (checkout / "sent.csv").write_text("variant,test_rlos_pgd\nat,1\n")
    (checkout / "bad.yaml").write_text("experiment: bad\nresults_table: sent.csv\n")
    done = snakemake("--show-failed-logs", "--", "figures/bad/early_stopping.png", config="bad.yaml")
    assert done.returncode != 0
    said = done.stdout + done.stderr + (checkout / "logs/bad/import.log").read_text()
    assert "did you mean 'test_rloss_pgd'" in said
    assert "Traceback" not in (checkout / "logs/bad/import.log").read_text()
