"""The examples in docs/how-to do what the pages say."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from robust_flatness.attacks import PGD
from robust_flatness.config import load_yaml
from robust_flatness.data import Dataset, make_splits
from robust_flatness.experiment import load_experiment
from robust_flatness.flatness import average_flatness
from robust_flatness.tables.importing import import_table
from robust_flatness.training.loop import Training

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs/how-to"
DIGITS = load_yaml(ROOT / "config/smoke.yaml")


def example(page: str, title: str) -> str:
    """The block with this title on a page."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    found = re.search(rf'^```\w+ title="{re.escape(title)}"[^\n]*\n(.*?)^```', text, re.M | re.S)
    assert found, f"{page}.md has no example {title!r}"
    return found[1]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in, whose modules can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("my_measures", "my_losses"):
        sys.modules.pop(name, None)


def test_data_of_ones_own(folder):
    (folder / "make_data.py").write_text(example("dataset", "make_data.py"))
    runpy.run_path("make_data.py")
    experiment = load_experiment(yaml.safe_load(example("dataset", "mine.yaml")))
    splits = make_splits(experiment.spec.data, 0)
    assert splits["x_train"].shape == (160, 1, 8, 8)
    assert splits["classes"] == 4
    assert {"robustness", "flatness"} <= experiment.measures.keys()


def test_a_variant_of_ones_own():
    own = yaml.safe_load(example("variant", "config/variants.yaml"))
    (slug,) = own
    experiment = load_experiment(DIGITS | {"own_variants": own, "variants": ["at", slug]})
    at, mine = (experiment.train_jobs[name].training for name in ("at", slug))
    assert mine.label_smoothing == 0.2
    assert mine.learning_rate == at.learning_rate / 2


def test_a_loss_of_ones_own_trains(folder):
    (folder / "my_losses.py").write_text(example("loss", "my_losses.py"))
    values = yaml.safe_load(example("loss", "experiment.yaml"))
    experiment = load_experiment(DIGITS | values)
    dataset = Dataset(make_splits(experiment.spec.data, 0))
    run = Training(experiment.train_job("brier", 0), dataset)
    row = run.epoch(0)
    assert 0 < row["train_loss"] <= 2  # a squared distance of two distributions
    assert run.finite()


def test_a_measure_of_ones_own(folder):
    (folder / "my_measures.py").write_text(example("measure", "my_measures.py"))
    values = yaml.safe_load(example("measure", "experiment.yaml"))
    experiment = load_experiment(DIGITS | {"measures": DIGITS["measures"] | values["measures"]})
    assert experiment.measures["sharpness"].own == {"entropy": "my_measures:entropy"}
    import my_measures

    torch.manual_seed(0)
    x, y = torch.rand(9, 4), torch.arange(9) % 3
    model = nn.Sequential(nn.Linear(4, 3))
    p = model(x).softmax(1)
    expected = -(p * p.log()).sum(1).mean().item()
    assert my_measures.entropy(model, x, y).value == pytest.approx(expected, rel=1e-5)
    assert my_measures.entropy(model, x, y, loss=PGD(0.3, 0.1, 3)).value != pytest.approx(expected, rel=1e-5)


def test_a_loss_of_ones_own_measures(folder):
    (folder / "my_losses.py").write_text(example("network", "my_losses.py"))
    import my_losses

    logits, y = torch.tensor([[1.0, 3.0, 2.5], [4.0, -1.0, 0.0]]), torch.tensor([1, 2])
    assert my_losses.margin(logits, y).tolist() == [-0.5, 4.0]
    x = torch.rand(9, 4)
    result = average_flatness(nn.Linear(4, 3), x, torch.arange(9) % 3, attack=None, loss=my_losses.margin)
    assert result.reference != result.perturbed[0]


def test_a_figure_of_ones_own(folder, monkeypatch):
    pictures = folder / "figures"
    pictures.mkdir()
    path = pictures / "my_figure.py"
    path.write_text(example("figure", "figures/my_figure.py"))
    rng = np.random.default_rng(0)
    lines = [f"at,{e:.2f},{e + 30:.2f}" for e in rng.uniform(5, 40, 1)]
    lines += [f"variant-{i},{e:.2f},{e + 30 + i:.2f}" for i, e in enumerate(rng.uniform(5, 40, 8))]
    table = folder / "table.csv"
    table.write_text("\n".join(["variant,test_err,test_rerr_pgd", *lines]) + "\n")
    import_table(table, folder / "results/tour")
    monkeypatch.setattr(sys, "argv", [str(path), "tour"])
    runpy.run_path(str(path), run_name="__main__")
    assert (folder / "figures/tour/my_figure.png").stat().st_size > 1000
