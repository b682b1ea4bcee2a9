"""Additions: a measure is one file and its name in the registry, a loss one file, a family YAML."""

import csv
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from robust_flatness.plotting import notebook

ROOT = Path(__file__).parents[2]
MEASURE = '''
"""A toy."""

from robust_flatness.config.measures import MeasureSettings
from robust_flatness.config.values import Count
from robust_flatness.measuring.base import Measure, Measured
from robust_flatness.tables.columns import Column


class ToySpec(MeasureSettings):
    """Its settings."""

    power: Count = 2


def toy(checkpoint, dataset, spec, seed, device="cpu", state=None):
    """Sum of powers of the weights."""
    return Measured({"toy": sum(w.abs().pow(spec.power).sum().item() for w in checkpoint.model.parameters())})


MEASURE = Measure(
    name="toy",
    spec=ToySpec,
    function=toy,
    passes=lambda spec, held_out, snapshots: 1,
    columns=(Column("toy", "toy of the weights", compared=True),),
    checkpoints=("last",),
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
variants: [at, trades-6, weight-decay-0.05, mine, alone]
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
own_variants:
  mine: {label: Mine, family: mine, set: {objective: my-loss, objective_parameters: {shift: 2}}}
  alone: {label: Alone, family: mine, set: {objective: "losses:Shifted", objective_parameters: {shift: 3}}}
families:
  mine: {label: My family, color: orange, marker: D}
"""
TARGETS = ["results/additions/models.csv", "paper_tables/additions/correlations.csv"]
FIGURE = "rloss_vs_average_flatness"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The repository with a file more, and one line of the registry changed."""
    folder = tmp_path_factory.mktemp("additions") / "checkout"
    ignored = shutil.ignore_patterns("__pycache__", "digits", "fashion", "smoke", "paper")
    for name in ("config", "figures", "paper_tables", "profiles", "report", "src", "workflow"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored if name != "src" else None)
    shutil.copy(ROOT / "Snakefile", folder)
    measuring = folder / "src/robust_flatness/measuring"
    (measuring / "toy.py").write_text(MEASURE)
    registry = (measuring / "registry.py").read_text()
    changed = re.sub(r"\bsharpness\b", "sharpness, toy", registry)
    assert changed.count("toy") == registry.count("sharpness") == 2  # the import and the list
    (measuring / "registry.py").write_text(changed)
    package = folder / "src/robust_flatness"
    (package / "training/objectives/my_loss.py").write_text(LOSS)
    with open(package / "config/catalogue.py", "a") as catalogue:
        catalogue.write('OBJECTIVES["my-loss"] = Objective(f"{_FOLDER}.my_loss:Shifted")\n')
    (folder / "losses.py").write_text(LOSS)
    (folder / "mine.yaml").write_text(CONFIG)
    return folder


def snakemake(checkout: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "snakemake", "--configfile", "mine.yaml", "--cores", "2", *arguments]
    environment = os.environ | {"PYTHONPATH": str(checkout / "src")}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_they_are_found_everywhere(checkout, monkeypatch):
    plan = snakemake(checkout, "--dry-run")
    assert re.search(r"^toy\s+5$", plan, re.MULTILINE)
    assert re.search(r"^train_variant\s+5$", plan, re.MULTILINE)
    snakemake(checkout, "--", *TARGETS, f"figures/additions/{FIGURE}.pdf")
    models = rows(checkout / TARGETS[0])
    assert {row["variant"] for row in models if row["family"] == "mine"} == {"mine", "alone"}
    assert all((float(row["toy"]) > 0) if row["checkpoint"] == "last" else not row["toy"] for row in models)
    shifts = {row["variant"]: row["setting_shift"] for row in models}
    assert (shifts["mine"], shifts["alone"], shifts["at"]) == ("2", "3", "")
    assert "toy" in {row["measure"] for row in rows(checkout / TARGETS[1])}
    assert "toy of the weights" in (checkout / TARGETS[1]).with_suffix(".md").read_text()
    assert "My family" in legend(checkout, monkeypatch)


def legend(checkout: Path, monkeypatch) -> list[str]:
    """The texts of the headline plot, drawn again in this process."""
    from matplotlib.text import Text

    drawn = []
    monkeypatch.setattr(notebook.Notebook, "save", lambda self, figure: drawn.append(figure))
    monkeypatch.chdir(checkout)
    monkeypatch.setattr(sys, "argv", [f"figures/{FIGURE}.py", "additions"])
    runpy.run_path(f"figures/{FIGURE}.py")
    return [text.get_text() for figure in drawn for text in figure.findobj(Text)]
