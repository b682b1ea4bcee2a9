"""Additions: a measure is one file and its name in the registry, a loss one file, a family YAML."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from runs import ROOT, rows, snakemake, succeeded

MEASURE = '''
"""A toy."""

from robust_flatness.config.measures import MeasureSettings
from robust_flatness.config.values import Count
from robust_flatness.measures.base import FLATTER, Measure, Metric, Record


class ToySettings(MeasureSettings):
    """Its settings."""

    power: Count = 2

    def passes(self, held_out):
        return 1


def toy(net, data, settings):
    """Sum of powers of the weights."""
    powers = (weights.abs().pow(settings.power).sum().item() for weights in net.weights().values())
    yield Record("toy", sum(powers))


MEASURE = Measure(
    name="toy",
    settings=ToySettings,
    function=toy,
    metrics={"toy": Metric("toy", "toy of the weights", direction=FLATTER, compared=True)},
)
'''
LOSS = """
'''A loss.'''

from torch.nn import functional as F

from robust_flatness.training.objectives.base import Objective


class Shifted(Objective):
    def __call__(self, forward, batch):
        logits = forward(batch.x_adv)
        shifted = logits + self.spec.objective_parameters["shift"] * F.one_hot(batch.target, logits.shape[1])
        return F.cross_entropy(shifted, batch.target, label_smoothing=batch.smoothing), logits
"""
CONFIG = """
experiment: additions
variants: [at, weight-decay-0.05, mine, alone]
epsilon: 0.03
data: {name: digits, train: 20, early_stopping: 20, test: 20}
model: {name: small-resnet, width: 4}
training: {epochs: 20, batch_size: 5, learning_rate: 0.1, steps: 1}
measures:
  robustness: {attack: {steps: 1, restarts: 1}, autoattack: null}
  flatness:
    attack: {steps: 1, restarts: 1}
    average: {xi: [0.5], samples: 1, clean_samples: 1}
    worst: {xi: [0.003], steps: 1, restarts: 1}
  toy: {power: 3}
own_variants:
  mine: {label: Mine, family: mine, set: {objective: my-loss, objective_parameters: {shift: 2}}}
  alone: {label: Alone, family: mine, set: {objective: "losses:Shifted", objective_parameters: {shift: 3}}}
families:
  mine: {label: My family, color: orange, marker: D}
"""
TARGETS = [
    "results/additions/models.csv",
    "paper_tables/additions/correlations.csv",
    "paper_tables/additions/sharpness_comparison.csv",
    "report/additions/index.html",
]
FIGURE = "rloss_vs_average_flatness"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The repository with a file more, and one line of the registry changed."""
    folder = tmp_path_factory.mktemp("additions") / "checkout"
    ignored = shutil.ignore_patterns("__pycache__", "digits", "fashion", "smoke", "paper")
    for name in ("config", "figures", "paper_tables", "profiles", "report", "src", "workflow"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored if name != "src" else None)
    shutil.copy(ROOT / "Snakefile", folder)
    package = folder / "src/robust_flatness"
    (package / "measures/toy.py").write_text(MEASURE)
    registry = (package / "measures/registry.py").read_text()
    changed = registry.replace('"series"', '"series", "toy"')
    assert changed.count("toy") == 1
    (package / "measures/registry.py").write_text(changed)
    (package / "training/objectives/my_loss.py").write_text(LOSS)
    with open(package / "config/catalogue.py", "a") as catalogue:
        catalogue.write('OBJECTIVES["my-loss"] = Objective(f"{_FOLDER}.my_loss:Shifted")\n')
    (folder / "losses.py").write_text(LOSS)
    (folder / "mine.yaml").write_text(CONFIG)
    return folder


def command(checkout: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(checkout / "src"), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "robust_flatness", *arguments], cwd=checkout, env=environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def test_a_measure_a_loss_and_a_family_are_found_everywhere(checkout):
    assert len(MEASURE.strip().splitlines()) <= 60
    assert command(checkout, "spec", "toy", "--config", "mine.yaml").strip() == '{"power":3}'
    assert '"toy"' in command(checkout, "schema")
    assert re.search(r"\btoy\b", command(checkout, "measure", "--help"))
    options = {"config": "mine.yaml", "root": checkout}
    planned = succeeded(snakemake(checkout, "--dry-run", **options))
    assert re.search(r"^measure_network\s+4$", planned, re.MULTILINE)
    succeeded(snakemake(checkout, "--", *TARGETS, f"figures/additions/{FIGURE}.pdf", **options))
    records = [row for row in rows(checkout / "results/additions/records.csv") if row["measure"] == "toy"]
    assert [(row["metric"], row["checkpoint"]) for row in records] == [("toy", "last")] * 4
    models = rows(checkout / TARGETS[0])
    assert {row["variant"] for row in models if row["family"] == "mine"} == {"mine", "alone"}
    of_models = {row["variant"]: row["toy"] for row in models if row["checkpoint"] == "last"}
    assert of_models == {row["variant"]: row["value"] for row in records}
    assert not any(row["toy"] for row in models if row["checkpoint"] == "best")
    shifts = {row["variant"]: row["setting_shift"] for row in models}
    assert (shifts["mine"], shifts["alone"], shifts["at"]) == ("2", "3", "")
    for table in TARGETS[1:3]:
        assert "toy" in {row["measure"] for row in rows(checkout / table)}
        assert "toy of the weights" in (checkout / table).with_suffix(".md").read_text()
    assert "toy of the weights" in (checkout / TARGETS[3]).read_text()


def test_a_change_of_an_objective_of_ones_own_trains_its_variant_again(checkout):
    (checkout / "losses.py").write_text(LOSS + "\n")
    planned = succeeded(snakemake(checkout, "--dry-run", "--", "train", config="mine.yaml", root=checkout))
    assert re.findall(r"rule train_variant:.*?variant=(\w+)", planned, re.DOTALL) == ["alone"]
