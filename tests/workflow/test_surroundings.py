"""Where the workflow runs: other folders, spaces in paths, as a module of another workflow."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from robust_flatness.config import load_yaml
from robust_flatness.errors import ConfigError
from robust_flatness.files import canonical_json
from robust_flatness.workflow import check_words, only_draws, plain_executable

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with a space in its name, and in it a results table with one in its."""
    folder = tmp_path / "my folder"
    folder.mkdir()
    table = "variant,test_rloss_pgd,avg_flatness_rloss\nat,1.5,1.2\ntrades-6,1.3,0.5\n"
    (folder / "my table.csv").write_text(table)
    (folder / "own.yaml").write_text('experiment: own\nresults_table: "my table.csv"\n')
    return folder


def snakemake(folder: Path, *arguments: str, python: str | Path = sys.executable):
    command = [python, "-m", "snakemake", "--workflow-profile", ROOT / "profiles/default", "--cores", "1"]
    return subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, timeout=900)


def test_spaces_in_every_path(folder):
    """The table's, the working directory's and the environment's."""
    (folder / "environment").symlink_to(Path(sys.executable).parents[1])
    figure = "figures/own/rloss_vs_average_flatness.png"
    done = snakemake(
        folder, "--snakefile", ROOT / "Snakefile", "--configfile", "own.yaml", "--", figure,
        python=folder / "environment/bin" / Path(sys.executable).name,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (folder / figure).exists()


def as_module(folder: Path, config: str, prefix: str, target: str) -> None:
    """Run a workflow of its own in `folder` that takes ours as a module and needs its file `target`."""
    (folder / "Snakefile").write_text(
        textwrap.dedent(
            f"""
            configfile: "{config}"

            module flatness:
                snakefile: "{ROOT / "Snakefile"}"
                config: config
                {f'prefix: "{prefix}"' if prefix else ""}

            use rule * from flatness as flatness_*

            rule mine:
                default_target: True
                input: "{Path(prefix, target)}"
                output: touch("mine")
            """
        )
    )
    done = snakemake(folder)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (folder / "mine").exists()


@pytest.mark.parametrize("prefix", ["", "their work"])
def test_as_a_module_of_another_workflow(folder, prefix):
    """Its own rules, its own folder; files of this repository are found all the same."""
    as_module(folder, "own.yaml", prefix, "paper_tables/own/claims.md")
    assert (folder / prefix / "results/own/models.csv").exists()


def test_a_prefix_of_a_module_goes_before_all_that_a_training_leaves(folder):
    experiment = load_yaml(ROOT / "config/smoke.yaml")
    experiment |= {"variants": ["at"], "measures": {"flatness": experiment["measures"]["flatness"]}}
    (folder / "small.yaml").write_text(canonical_json(experiment))
    before = {path.name for path in folder.iterdir()}
    as_module(folder, "small.yaml", "their work", "results/smoke/models.csv")
    assert (folder / "their work/results/smoke/at/seed-0/timings/measure.tsv").exists()
    assert {path.name for path in folder.iterdir()} - before == {
        ".snakemake",
        "Snakefile",
        "mine",
        "their work",
    }


def test_a_path_that_needs_quotes_is_refused_where_jobs_run_elsewhere(tmp_path):
    python = str(tmp_path / "an env" / "bin" / "python")
    with pytest.raises(ConfigError, match=r"an env.*make the environment in a folder without"):
        plain_executable(python, here_alone=False)
    assert plain_executable(sys.executable, here_alone=False) == sys.executable


def test_a_link_to_an_environment_is_that_environment(tmp_path):
    (tmp_path / "an env").symlink_to(Path(sys.executable).parents[1])
    python = plain_executable(str(tmp_path / "an env/bin" / Path(sys.executable).name), here_alone=True)
    assert " " not in python
    code = "import snakemake, sys; print(sys.prefix)"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert os.path.samefile(done.stdout.strip(), sys.prefix)


@pytest.mark.parametrize(
    ("targets", "drawing"),
    [
        ((), False),
        (("figures",), True),
        (("tables", "./figures/digits/x.pdf", Path("paper_tables/digits/claims.md")), True),
        (("figures", "measure"), False),
        (("results/digits/models.csv",), False),
    ],
)
def test_drawing_targets_are_figures_and_tables_alone(targets, drawing):
    assert only_draws(targets) is drawing


def test_a_target_among_config_files_or_settings_is_named_with_a_remedy(folder, monkeypatch):
    done = snakemake(folder, "-n", "--snakefile", ROOT / "Snakefile", "--configfile", "own.yaml", "tables")
    assert done.returncode == 1
    assert "tables is not one; write targets first, or after --" in done.stderr
    assert "Traceback" not in done.stderr
    (folder / "figures").mkdir()
    monkeypatch.chdir(folder)
    for refused in (
        ["--configfiles", "own.yaml", "figures", "--cores", "1"],
        ["--configfile", "nowhere.yaml"],
        ["--config", "variants=at,awp", "measure", "seeds=0", "--cores", "1"],
    ):
        with pytest.raises(ConfigError, match=r"(figures|nowhere\.yaml|measure) is not one"):
            check_words(["snakemake", *refused])
    for allowed in (
        ["figures", "--configfile", "own.yaml"],
        ["--configfile", "own.yaml", "--", "figures"],
        ["measure", "-C", "variants=at", "--configfile=own.yaml", "--", "figures"],
    ):
        check_words(["snakemake", *allowed])


def test_a_training_longer_than_a_job_is_cut(tmp_path):
    """Each piece waits for the one before, and no job asks for more than the limit."""
    text = (ROOT / "config/smoke.yaml").read_text() + "\ncompute: {hours: 1}\n"
    assert text.count("epochs: 3") == 1
    (tmp_path / "long.yaml").write_text(text.replace("epochs: 3", "epochs: 1000000"))
    options = ["--snakefile", ROOT / "Snakefile", "--configfile", "long.yaml"]
    done = snakemake(tmp_path, "-n", *options, "--", "train")
    assert done.returncode == 0, done.stderr[-2000:]
    said = done.stdout + done.stderr
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
