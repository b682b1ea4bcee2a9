"""Where the workflow runs: other folders, spaces in paths, as a module of another workflow."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from runs import ROOT, snakemake, succeeded


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with a space in its name, and in it a results table with one in its."""
    folder = tmp_path / "my folder"
    folder.mkdir()
    table = "variant,test_rloss_pgd,avg_flatness_rloss\nat,1.5,1.2\ntrades-6,1.3,0.5\n"
    (folder / "my table.csv").write_text(table)
    (folder / "own.yaml").write_text('experiment: own\nresults_table: "my table.csv"\n')
    return folder


def test_spaces_in_every_path(folder):
    """The table's, the working directory's and the environment's."""
    (folder / "environment").symlink_to(Path(sys.executable).parents[1])
    figure = "figures/own/rloss_vs_average_flatness.png"
    python = folder / "environment/bin" / Path(sys.executable).name
    succeeded(snakemake(folder, "--", figure, config="own.yaml", python=[python]))
    assert (folder / figure).exists()


def test_as_a_module_of_another_workflow(folder):
    """Its own rules, its own folder; files of this repository are found all the same."""
    (folder / "Snakefile").write_text(
        textwrap.dedent(
            f"""
            configfile: "own.yaml"

            module flatness:
                snakefile: "{ROOT / "Snakefile"}"
                config: config
                prefix: "their work"

            use rule * from flatness as flatness_*

            rule mine:
                default_target: True
                input: "their work/paper_tables/own/claims.md"
                output: touch("mine")
            """
        )
    )
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--workflow-profile",
        ROOT / "profiles/default",
        "--cores",
        "1",
    ]
    succeeded(subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600))
    assert (folder / "mine").exists()
    assert (folder / "their work/results/own/models.csv").exists()


def test_a_target_among_config_files_is_named(folder):
    done = snakemake(folder, "-n", "--configfile", "own.yaml", "tables", config="own.yaml")
    assert done.returncode == 1
    assert "tables is not one; write targets first, or after --" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_training_longer_than_a_job_is_cut(tmp_path):
    """Each piece waits for the one before, and no job asks for more than the limit."""
    text = (ROOT / "config/smoke.yaml").read_text() + "\ncompute: {hours: 1}\n"
    assert text.count("epochs: 3") == 1
    (tmp_path / "long.yaml").write_text(text.replace("epochs: 3", "epochs: 1000000"))
    said = succeeded(snakemake(tmp_path, "-n", "--", "train", config="long.yaml"))
    limits = [int(found) for found in re.findall(r"runtime=(\d+)", said)]
    assert limits
    assert max(limits) <= 60
    pieces = sorted(
        {int(found) for found in re.findall(r"output: results/smoke/at/seed-0/pieces/(\d+)", said)}
    )
    assert len(pieces) > 1
    assert pieces == list(range(1, len(pieces) + 1))
    assert re.search(
        rf"input: .*results/smoke/at/seed-0/pieces/{pieces[-1]}\n    output: .*history.csv", said
    )
