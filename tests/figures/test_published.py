"""The published experiment through Snakemake, without torch, and what a change redraws."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
    assert (drawn / "results/paper/models.csv").exists()


@pytest.mark.parametrize(
    ("path", "redrawn"),
    [
        ("figures/rloss_vs_average_flatness.py", TARGETS[:1]),
        ("config/claims.yaml", TARGETS[1:]),
        ("config/variants.yaml", TARGETS),
    ],
)
def test_a_change_redraws_what_reads_the_file(drawn, snakemake, path, redrawn):
    with changed(drawn / path):
        assert sorted(planned(snakemake("--dry-run", "--", *TARGETS))) == sorted(redrawn)
