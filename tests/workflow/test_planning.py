"""What reruns and why: plans (`snakemake -n`) after a change, on results that are only marked as made."""

import os
import re
import resource
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from robust_flatness.config import load_yaml
from robust_flatness.experiment import load_experiment

ROOT = Path(__file__).parents[2]
SMOKE = (ROOT / "config/smoke.yaml").read_text()


class Workflow:
    """The workflow in a folder of its own, with a config that can be changed."""

    def __init__(self, directory: Path, config: str = SMOKE):
        self.directory = directory
        self.write(config)

    def write(self, config: str, age: float | None = None) -> None:
        path = self.directory / "config.yaml"
        path.write_text(config)
        if age is not None:
            os.utime(path, (age, age))

    def change(self, old: str, new: str) -> None:
        assert SMOKE.count(old) == 1, f"{old!r} is {SMOKE.count(old)} times in smoke.yaml"
        self.write(SMOKE.replace(old, new))

    def snakemake(
        self, *arguments: str, python: tuple[str, ...] = (), root: Path = ROOT
    ) -> subprocess.CompletedProcess:
        command = [sys.executable, *python, "-m", "snakemake", "--snakefile", str(root / "Snakefile")]
        command += ["--workflow-profile", str(root / "profiles/default"), "--directory", str(self.directory)]
        command += ["--cores", "2", "--configfile", str(self.directory / "config.yaml")]
        command += [argument for argument in arguments if argument.startswith("-")]
        command += ["--", *(argument for argument in arguments if not argument.startswith("-"))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=self.directory)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done

    def plan(self, *targets: str, root: Path = ROOT) -> Counter:
        """Jobs planned: (rule, variant) -> count; the variant is empty for rules without one."""
        done = self.snakemake("--dry-run", *targets, root=root)
        jobs: Counter = Counter()
        for block in re.split(r"\n(?=(?:local)?rule \w+:)", done.stdout + done.stderr)[1:]:
            rule = re.match(r"(?:local)?rule (\w+):", block).group(1)
            variant = re.search(r"wildcards:.*\bvariant=([^,\s]+)", block)
            jobs[rule, variant.group(1) if variant else ""] += 1
        return jobs


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Workflow:
    """All outputs of the smoke experiment are there, as if made: empty files with Snakemake's record."""
    workflow = Workflow(tmp_path_factory.mktemp("planning"))
    listed = workflow.snakemake("--summary").stdout.splitlines()
    for line in listed[1:]:
        path = workflow.directory / line.split("\t")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    workflow.snakemake("--touch", "--forceall")
    return workflow


@pytest.fixture
def workflow(made):
    made.write(SMOKE)
    yield made
    made.write(SMOKE)


MEASURES = {"robustness", "flatness", "hessian", "landscape", "series"}
EXPENSIVE = MEASURES | {"prepare", "pseudo_label", "train_variant", "scale"}


def expensive(jobs: Counter) -> set[tuple[str, str]]:
    return {job for job in jobs if job[0] in EXPENSIVE}


def rules(jobs: Counter) -> set[str]:
    return {rule for rule, _ in jobs}


def test_nothing_is_redone_without_a_change(workflow):
    assert not workflow.plan()


def test_comments_descriptions_and_order_rerun_nothing(workflow):
    lines = SMOKE.replace("a few epochs on a few digits", "other words").splitlines()
    workflow.write("\n".join(["# a remark", *lines]))
    assert not expensive(workflow.plan())


def test_numbers_written_otherwise_rerun_nothing(workflow):
    workflow.write(SMOKE.replace("0.15/4", "0.0375").replace("epsilon: 0.15\n", "epsilon: '15/100'\n"))
    assert not expensive(workflow.plan())


def test_a_variants_setting_retrains_that_variant_alone(workflow):
    workflow.write(SMOKE + "  trades-6: {set: {objective_weight: 5}}\n")
    jobs = workflow.plan()
    assert {job for job in jobs if job[0] == "train_variant"} == {("train_variant", "trades-6")}
    assert {variant for _, variant in expensive(jobs)} == {"trades-6"}
    assert rules(jobs) >= {"robustness", "flatness", "series", "collect"}


def test_the_baselines_setting_retrains_every_variant_and_remakes_no_data(workflow):
    workflow.change("  epochs: 3", "  epochs: 4")
    jobs = workflow.plan()
    assert {variant for rule, variant in jobs if rule == "train_variant"} == {"at", "trades-6", "unlabeled"}
    assert "prepare" not in rules(jobs)


def test_derived_models_follow_their_source(workflow):
    workflow.write(SMOKE + "  at: {set: {momentum: 0.8}}\n")
    jobs = workflow.plan()
    assert {variant for _, variant in expensive(jobs)} == {"at", "at-scaled-2"}
    assert ("scale", "at-scaled-2") in jobs


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("xi: [0.5, 0.25], samples: 3", "xi: [0.5, 0.75], samples: 3"),
        ("xi: [0.003, 0.00075], steps: 3", "xi: [0.003], steps: 3"),
        ("samples: 3, clean_samples: 3", "samples: 4, clean_samples: 3"),
    ],
)
def test_a_flatness_setting_remeasures_flatness_alone(workflow, old, new):
    workflow.change(old, new)
    jobs = workflow.plan()
    assert {rule for rule, _ in expensive(jobs)} == {"flatness"}
    assert {variant for rule, variant in jobs if rule == "flatness"} == {
        "at",
        "trades-6",
        "unlabeled",
        "at-scaled-2",
    }


def test_autoattacks_budget_remeasures_robustness_alone(workflow):
    workflow.change("iterations: 3, target_classes: 2", "iterations: 4, target_classes: 2")
    assert {rule for rule, _ in expensive(workflow.plan())} == {"robustness"}


def test_a_setting_of_the_series_remeasures_the_series_alone(workflow):
    workflow.change("xi: [0.5], samples: 2", "xi: [0.5], samples: 3")
    assert expensive(workflow.plan()) == {("series", "at"), ("series", "trades-6")}


def test_an_added_variant_adds_its_own_jobs_alone(workflow):
    workflow.change("variants: [at, trades-6,", "variants: [at, awp-0.01, trades-6,")
    assert {variant for _, variant in expensive(workflow.plan())} == {"awp-0.01"}


def test_an_added_seed_adds_its_own_jobs_alone(workflow):
    workflow.change("seeds: [0]", "seeds: [0, 1]")
    done = workflow.snakemake("--dry-run")
    planned = re.findall(r"wildcards:.*\bseed=(\d+)", done.stdout + done.stderr)
    assert set(planned) == {"1"}


def test_added_seeds_of_the_baseline_add_its_jobs_alone(workflow):
    workflow.change("seeds: [0]", "seeds: [0]\nbaseline_seeds: [0, 1]")
    jobs = workflow.plan()
    assert {variant for rule, variant in expensive(jobs) if rule != "prepare"} == {"at"}
    assert jobs["train_variant", "at"] == 1


def test_a_deleted_measure_is_measured_again_alone(workflow):
    path = workflow.directory / "results/smoke/at/seed-0/measures/last/hessian.json"
    before = path.stat()
    path.unlink()
    try:
        assert expensive(workflow.plan("measure")) == {("hessian", "at")}
    finally:
        path.touch()
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


UPSTREAM = {
    "training": ("  epochs: 3", "  epochs: 4"),
    "radius": ("xi: [0.5, 0.25], samples: 3", "xi: [0.5], samples: 3"),
    "seed": ("seeds: [0]", "seeds: [0, 1]"),
    "variant": ("variants: [at, trades-6,", "variants: [at, awp-0.01, trades-6,"),
    "data": ("train: 60, unlabeled", "train: 61, unlabeled"),
}


@pytest.mark.parametrize("change", UPSTREAM)
def test_figures_and_tables_never_train_or_measure_once_there_are_results(workflow, change):
    workflow.change(*UPSTREAM[change])
    jobs = workflow.plan("figures", "tables")
    assert not rules(jobs) & (EXPENSIVE | {"collect"})


def touched(path: Path) -> None:
    os.utime(path)


#: What happens to a file upstream of the tables, in the results' folder.
FILES = {
    "a deleted measure": ("at/seed-0/measures/last/flatness.json", Path.unlink),
    "a deleted checkpoint": ("trades-6/seed-0/checkpoints/last.safetensors", Path.unlink),
    "a newer dataset": ("data/seed-0.safetensors", touched),
    "a copied-in table": ("models.csv", touched),
    "a missing table": ("landscape.csv", Path.unlink),
}


@pytest.mark.parametrize("event", FILES)
def test_drawing_plans_one_figure_and_nothing_upstream_whatever_happened_to_files(workflow, event):
    name, happens = FILES[event]
    path = workflow.directory / "results/smoke" / name
    before = path.stat()
    figure = workflow.directory / "figures/smoke/rerr_vs_rloss.png"
    kept = figure.stat()
    figure.unlink()
    try:
        happens(path)
        jobs = workflow.plan("figures/smoke/rerr_vs_rloss.png")
        assert {rule for rule, _ in jobs} == {"figure"}
        assert jobs["figure", ""] == 1
    finally:
        for changed, state in ((path, before), (figure, kept)):
            changed.touch()
            os.utime(changed, ns=(state.st_atime_ns, state.st_mtime_ns))


#: What the workflow needs of the repository.
CHECKOUT = ("Snakefile", "config", "figures", "paper_tables", "profiles", "report", "src", "workflow")


def test_drawing_ignores_changed_source_and_changed_rules(made, tmp_path):
    checkout = tmp_path / "checkout"
    for name in CHECKOUT:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, checkout / name)
        else:
            checkout.mkdir(exist_ok=True)
            shutil.copyfile(source, checkout / name)
    rule = checkout / "workflow/rules/measure.smk"
    text = rule.read_text()
    assert " {params.measure} " in text
    rule.write_text(text.replace(" {params.measure} ", "  {params.measure} "))
    touched(checkout / "src/robust_flatness/flatness/average.py")
    made.write(SMOKE)
    jobs = made.plan("figures", "tables", root=checkout)
    assert not rules(jobs) & (EXPENSIVE | {"collect"})
    assert rules(made.plan(root=checkout)) & MEASURES  # the full target does see the changed rule


def test_drawing_tells_of_a_table_older_than_the_config(workflow):
    workflow.change(*UPSTREAM["training"])
    done = workflow.snakemake("--dry-run", "figures")
    assert "models.csv is older than the configuration" in done.stderr
    workflow.write(SMOKE, age=1.0)
    done = workflow.snakemake("--dry-run", "figures")
    assert "older" not in done.stderr


def test_a_fresh_clone_plans_all_trainings_quickly_and_without_torch(tmp_path):
    fresh = Workflow(tmp_path, (ROOT / "config/fashion.yaml").read_text())
    experiment = load_experiment(load_yaml(ROOT / "config/fashion.yaml"), ROOT / "config/variants.yaml")
    trainings = sum(len(experiment.seeds_of(slug)) for slug in experiment.train_jobs)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = fresh.snakemake("--dry-run", python=("-X", "importtime"))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    text = done.stdout + done.stderr
    assert trainings >= 74
    assert re.search(rf"^train_variant\s+{trainings}$", text, re.MULTILINE)
    # seconds of processor time: the wall time on an idle machine
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5
    imported = set(re.findall(r"import time:.*\|\s*([\w.]+)$", done.stderr, re.MULTILINE))
    assert "snakemake" in imported
    assert not imported & {"torch", "torchvision", "sklearn", "matplotlib"}


def test_a_bad_config_ends_planning_with_one_message(tmp_path):
    workflow = Workflow(tmp_path, SMOKE.replace("epsilon: 0.15\n", "epsilon: -1\n"))
    with pytest.raises(AssertionError) as failed:
        workflow.snakemake("--dry-run")
    message = str(failed.value)
    assert "epsilon: Input should be greater than 0 (given: -1)" in message
    assert "Traceback" not in message
