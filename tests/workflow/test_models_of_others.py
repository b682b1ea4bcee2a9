"""Networks of others in the workflow: planned, checked first, measured, listed, drawn, in no correlation."""

import runpy
import sys
from pathlib import Path

import pytest
import yaml
from runs import ROOT, rows, snakemake, succeeded

from robust_flatness.config import load_yaml
from robust_flatness.plotting import notebook
from robust_flatness.tables.records import read_network

NETS = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))

def three():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
"""
MODELS = {
    "mine": {"model": "nets:net", "label": "My network"},
    "counted": {"model": "nets:net", "mean": [0.5], "std": [0.25], "correlate": True},
}
FIGURE = "rloss_vs_average_flatness"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("others")
    (folder / "nets.py").write_text(NETS)
    smoke = load_yaml(ROOT / "config/smoke.yaml")
    smoke |= {"variants": ["at"], "models": MODELS, "overrides": {}}
    smoke["measures"] = {name: smoke["measures"][name] for name in ("robustness", "flatness")}
    (folder / "mine.yaml").write_text(yaml.safe_dump(smoke))
    return folder


def changed(folder: Path, name: str, **models: dict) -> str:
    """A config of its own, with other networks."""
    values = load_yaml(folder / "mine.yaml") | {"models": models, "experiment": name}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    return f"{name}.yaml"


@pytest.fixture(scope="module")
def run(folder) -> Path:
    targets = ["results/smoke/models.csv", "paper_tables/smoke/errors.csv", "paper_tables/smoke/headline.csv"]
    targets += [f"figures/smoke/{FIGURE}.png", "report/smoke/index.html"]
    succeeded(snakemake(folder, "--", *targets, config="mine.yaml"))
    return folder


def test_they_are_measured_as_the_variants_are_and_listed(run):
    table = rows(run / "results/smoke/models.csv")
    models = {row["variant"]: row for row in table if row["checkpoint"] == "last"}
    assert {*models} == {"at", *MODELS}
    assert [models[name]["derived"] for name in ("at", "mine", "counted")] == ["0", "1", "0"]
    for name in MODELS:
        row = models[name]
        assert all(bool(row[column]) == bool(models["at"][column]) for column in row if "flatness" in column)
        assert float(row["test_rloss_pgd"]) > 0
        assert row["run_data"] == models["at"]["run_data"]
        assert not row["setting_epochs"]
    assert models["mine"]["run_weights"] not in ("", models["counted"]["run_weights"])
    mine, at = (read_network(run / f"results/smoke/{name}/seed-0/records.csv")[0] for name in ("mine", "at"))
    assert mine["settings"] == at["settings"]
    assert [*mine["checkpoints"]] == ["last"]
    labels = {row["label"] for row in rows(run / "paper_tables/smoke/errors.csv")}
    assert {"My network, of others", "counted"} <= labels
    sections = {row["variant"]: row["section"] for row in rows(run / "paper_tables/smoke/headline.csv")}
    assert sections["mine"] == "networks of others"


def test_they_are_drawn_with_their_names_and_in_no_coefficient(run, monkeypatch):
    from matplotlib.text import Text

    drawn = []
    monkeypatch.setattr(notebook.Notebook, "show", lambda self, draw, *_: drawn.append((self, draw())))
    monkeypatch.chdir(run)
    monkeypatch.setattr(sys, "argv", [f"{FIGURE}.py", "smoke"])
    runpy.run_path(str(ROOT / f"figures/{FIGURE}.py"))
    ((book, figure),) = drawn
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert {"My network", "Networks of others"} <= {*texts}
    assert "mine" not in {*book.ours.evidence.models["variant"]}
    assert f"n = {len(book.ours.counted)}" in "\n".join(texts)


def test_a_second_run_and_another_label_measure_nothing_and_another_network_itself_alone(run):
    assert "Nothing to be done" in succeeded(snakemake(run, "--dry-run", "--", "measure", config="mine.yaml"))
    config = changed(run, "smoke", **MODELS | {"mine": MODELS["mine"] | {"label": "Ours"}})
    assert "Nothing to be done" in succeeded(snakemake(run, "--dry-run", "--", "measure", config=config))
    config = changed(run, "smoke", **MODELS | {"third": {"model": "nets:net", "mean": [0.1], "std": [1]}})
    planned = succeeded(snakemake(run, "--dry-run", "--", "measure", config=config))
    assert "variant=third" in planned
    assert not any(f"variant={name}" in planned for name in ("at", *MODELS))


def test_what_does_not_fit_ends_before_the_first_training(folder):
    done = snakemake(folder, config=changed(folder, "gone", a={"model": "nets:net", "weights": "gone.pt"}))
    assert done.returncode != 0
    assert "error: the configuration cannot be used\nmodels.a.weights: gone.pt: no such file" in done.stderr
    done = snakemake(folder, config=changed(folder, "three", a={"model": "nets:three"}))
    assert done.returncode != 0
    assert "error: models.a: nets:three has 3 classes, the data have 10" in done.stderr
    assert not (folder / "results/three").exists()
