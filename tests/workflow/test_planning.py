"""What reruns and why: plans (`snakemake -n`) after a change, on results that are only marked as made."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest
from runs import ROOT, snakemake, succeeded

from robust_flatness.config import load_yaml
from robust_flatness.experiment import load_experiment

SMOKE = (ROOT / "config/smoke.yaml").read_text()
MEASURED = {"at", "trades-6", "unlabeled", "at-scaled-2"}


class Workflow:
    """The workflow in a folder of its own, with a config that can be changed."""

    def __init__(self, directory: Path, config: str = SMOKE):
        self.directory = directory
        self.write(config)

    def write(self, config: str) -> None:
        (self.directory / "config.yaml").write_text(config)

    def change(self, old: str, new: str) -> None:
        assert SMOKE.count(old) == 1, f"{old!r} is {SMOKE.count(old)} times in smoke.yaml"
        self.write(SMOKE.replace(old, new))

    def snakemake(self, *arguments: str, **options) -> str:
        """Run `snakemake` with options, `--`, and targets; return all that it says."""
        options |= {"config": self.directory / "config.yaml"}
        parts = [word for word in arguments if word.startswith("-")]
        targets = [word for word in arguments if not word.startswith("-")]
        return succeeded(snakemake(self.directory, *parts, "--", *targets, **options))

    def plan(self, *targets: str, root: Path = ROOT) -> Counter:
        return jobs_of(self.snakemake("--dry-run", *targets, root=root))


def jobs_of(text: str) -> Counter:
    """Jobs planned: (rule, variant) -> count; the variant is empty for rules without one."""
    jobs: Counter = Counter()
    for block in re.split(r"\n(?=(?:local)?rule \w+:)", text)[1:]:
        rule = re.match(r"(?:local)?rule (\w+):", block).group(1)
        variant = re.search(r"wildcards:.*\bvariant=([^,\s]+)", block)
        jobs[rule, variant.group(1) if variant else ""] += 1
    return jobs


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Workflow:
    """All outputs of the smoke experiment as if made: empty files, with Snakemake's record."""
    workflow = Workflow(tmp_path_factory.mktemp("planning"))
    listed = [line.split("\t")[0] for line in workflow.snakemake("--summary").splitlines() if "\t" in line]
    for name in listed[1:]:
        path = workflow.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    workflow.snakemake("--touch", "--forceall")
    return workflow


@pytest.fixture
def workflow(made):
    made.write(SMOKE)
    yield made
    made.write(SMOKE)


EXPENSIVE = {"prepare", "pseudo_label", "train_variant", "scale", "measure_network"}


def expensive(jobs: Counter) -> set[tuple[str, str]]:
    return {job for job in jobs if job[0] in EXPENSIVE}


def variants(jobs: Counter, rule: str) -> set[str]:
    return {variant for planned, variant in jobs if planned == rule}


def rules(jobs: Counter) -> set[str]:
    return {rule for rule, _ in jobs}


def test_without_a_change_or_with_other_forms_of_the_same_settings_no_job_reruns(workflow):
    assert not workflow.plan()
    other = SMOKE.replace("a few epochs on a few digits", "# a remark\n  other words")
    workflow.write(other.replace("0.15/4", "0.0375").replace("epsilon: 0.15\n", "epsilon: '15/100'\n"))
    assert not expensive(workflow.plan())


def test_a_setting_of_a_variant_retrains_that_variant_alone(workflow):
    workflow.write(SMOKE + "  trades-6: {set: {objective_weight: 5}}\n")
    jobs = workflow.plan()
    assert expensive(jobs) == {("train_variant", "trades-6"), ("measure_network", "trades-6")}
    assert "collect" in rules(jobs)


def test_a_setting_of_the_baseline_retrains_every_variant_and_prepares_no_data(workflow):
    workflow.change("  epochs: 3", "  epochs: 4")
    jobs = workflow.plan()
    assert variants(jobs, "train_variant") == {"at", "trades-6", "unlabeled"}
    assert variants(jobs, "measure_network") == MEASURED
    assert "prepare" not in rules(jobs)


@pytest.mark.parametrize(
    ("old", "new", "remeasured"),
    [
        ("xi: [0.5, 0.25], samples: 3", "xi: [0.5, 0.75], samples: 3", MEASURED),
        ("xi: [0.5], samples: 2", "xi: [0.5], samples: 3", {"at", "trades-6"}),
        ("variants: [at]\n    points: 5", "variants: [unlabeled]\n    points: 5", {"at", "unlabeled"}),
    ],
)
def test_a_setting_of_a_measure_measures_the_networks_it_applies_to_and_trains_nothing(
    workflow, old, new, remeasured
):
    workflow.change(old, new)
    assert expensive(workflow.plan()) == {("measure_network", variant) for variant in remeasured}


def test_an_added_variant_or_seed_adds_its_own_jobs_alone(workflow):
    workflow.change("variants: [at, trades-6,", "variants: [at, awp-0.01, trades-6,")
    assert {variant for _, variant in expensive(workflow.plan())} == {"awp-0.01"}
    workflow.change("seeds: [0]", "seeds: [0, 1]")
    assert set(re.findall(r"wildcards:.*\bseed=(\d+)", workflow.snakemake("--dry-run"))) == {"1"}
    workflow.change("seeds: [0]", "seeds: [0]\nbaseline_seeds: [0, 1]")
    jobs = workflow.plan()
    assert {variant for rule, variant in expensive(jobs) if rule != "prepare"} == {"at"}


@contextlib.contextmanager
def changed(path: Path, change):
    """Change a file, and restore its time afterwards."""
    before = path.stat()
    change(path)
    try:
        yield
    finally:
        path.touch()
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_drawing_from_tables_that_lack_networks_or_are_of_an_earlier_version_says_so(workflow):
    records = workflow.directory / "results/smoke/records.csv"
    networks = records.with_name("networks.csv")
    before = networks.read_text()
    with changed(records, os.utime), changed(networks, lambda path: path.write_text("variant,seed\nat,0\n")):
        said = workflow.snakemake("--dry-run", "figures")
        networks.write_text(before)
    assert "lack 3 networks, such as at-scaled-2 of seed 0" in said
    with changed(records, Path.unlink):
        done = snakemake(workflow.directory, "--dry-run", config=workflow.directory / "config.yaml")
    assert done.returncode
    assert "results of an earlier version of this package; move the folder" in done.stderr


def test_deleted_records_are_measured_again_and_a_deleted_figure_is_drawn_again_alone(workflow):
    results = workflow.directory / "results/smoke"
    figure = workflow.directory / "figures/smoke/rerr_vs_rloss.png"
    with (
        changed(results / "at/seed-0/records.csv", Path.unlink),
        changed(figure, Path.unlink),
        changed(results / "data/seed-0.safetensors", os.utime),
    ):
        assert workflow.plan("figures/smoke/rerr_vs_rloss.png") == {("figure", ""): 1}
    with changed(results / "at/seed-0/records.csv", Path.unlink):
        assert expensive(workflow.plan("measure")) == {("measure_network", "at")}


def test_drawing_from_records_ignores_changed_settings_source_and_rules(workflow, tmp_path):
    checkout = tmp_path / "checkout"
    for name in ("config", "figures", "paper_tables", "profiles", "report", "src", "workflow"):
        shutil.copytree(ROOT / name, checkout / name)
    shutil.copy(ROOT / "Snakefile", checkout)
    rule = checkout / "workflow/rules/measure.smk"
    rule.write_text(rule.read_text().replace("measure-network --spec", "measure-network  --spec"))
    os.utime(checkout / "src/robust_flatness/measures/flatness.py")
    workflow.write(SMOKE.replace("  epochs: 3", "  epochs: 4").replace("seeds: [0]", "seeds: [0, 1]"))
    assert not rules(workflow.plan("figures", "tables", root=checkout)) & (EXPENSIVE | {"collect"})
    workflow.write(SMOKE)
    assert "measure_network" in rules(workflow.plan(root=checkout))  # the full target has the changed rule


def test_a_fresh_clone_plans_all_jobs_without_torch(tmp_path):
    fresh = Workflow(tmp_path, (ROOT / "config/fashion.yaml").read_text())
    experiment = load_experiment(load_yaml(ROOT / "config/fashion.yaml"))
    trainings = sum(len(experiment.seeds_of(slug)) for slug in experiment.train_jobs)
    networks = sum(len(experiment.seeds_of(slug)) for slug in experiment.variants)
    text = fresh.snakemake("--dry-run", python=(sys.executable, "-X", "importtime"))
    assert trainings >= 74
    assert re.search(rf"^train_variant\s+{trainings}$", text, re.MULTILINE)
    assert re.search(rf"^measure_network\s+{networks}$", text, re.MULTILINE)
    imported = set(re.findall(r"import time:.*\|\s*([\w.]+)$", text, re.MULTILINE))
    assert "snakemake" in imported
    assert not imported & {"torch", "torchvision", "sklearn", "matplotlib"}


def test_text_of_an_experiment_may_hold_braces(tmp_path):
    own = "own_variants: {own: {label: 'AT $\\tau_{max}$', family: mine, set: {epochs: 2}}}\n"
    text = SMOKE.replace("[at, trades-6,", "[at, own, trades-6,").replace("few digits", "few {digits}")
    Workflow(tmp_path, text + own + "families: {mine: {label: 'My {own}'}}\n").plan()


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
    options = ["--workflow-profile", ROOT / "profiles/default", "--cores", "1"]
    command = [sys.executable, "-m", "snakemake", *options]
    succeeded(subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600))
    assert (folder / "mine").exists()
    assert (folder / "their work/results/own/models.csv").exists()


def test_the_name_of_another_experiment_is_refused(folder):
    done = snakemake(folder, "-n", "--config", "experiment=cifar10-mini", config="own.yaml")
    assert done.returncode == 1
    assert "config/cifar10-mini.yaml instead of --config" in done.stderr
    assert "Traceback" not in done.stderr
    succeeded(snakemake(folder, "-n", "--config", "experiment=mine", config="own.yaml"))


def test_a_training_longer_than_a_job_is_cut(tmp_path):
    """Each piece waits for the one before, and no job asks for more than the limit."""
    text = (ROOT / "config/smoke.yaml").read_text() + "\ncompute: {hours: 1}\n"
    assert text.count("epochs: 3") == 1
    (tmp_path / "long.yaml").write_text(text.replace("epochs: 3", "epochs: 1000000"))
    said = succeeded(snakemake(tmp_path, "-n", "--", "train", config="long.yaml"))
    limits = [int(found) for found in re.findall(r"runtime=(\d+)", said)]
    assert limits
    assert max(limits) <= 60
    place = "results/smoke/at/seed-0/pieces"
    pieces = {int(found) for found in re.findall(rf"output: {place}/(\d+)", said)}
    assert len(pieces) > 1
    assert pieces == {*range(1, len(pieces) + 1)}
    assert re.search(rf"input: .*{place}/{len(pieces)}\n    output: .*history.csv", said)
