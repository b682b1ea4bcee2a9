"""`robust-flatness measure`: records of a user's network, its settings, warnings, and place among others."""

import json
import math
import re
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from robust_flatness.architectures import build_model
from robust_flatness.checkpoints import Metadata, save_checkpoint
from robust_flatness.config import DataSpec, ModelSpec
from robust_flatness.data import make_splits, save_dataset
from robust_flatness.measures.base import Record
from robust_flatness.run import own_model, place
from robust_flatness.run.measuring import MeasuringJob, measure_network
from robust_flatness.seeding import generator
from robust_flatness.tables.importing import import_table
from robust_flatness.tables.records import read_csv, read_records

NETS = """
import torch
from torch import nn

def good():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

def soft():
    return nn.Sequential(good(), nn.Softmax(1))

def images():
    return nn.Identity()

def not_a_number():
    net = good()
    nn.init.constant_(net[1].weight, float("nan"))
    return net

def needs_arguments(width):
    return good()

def kit():
    from robust_flatness.architectures import build_model
    from robust_flatness.config import ModelSpec
    return build_model(ModelSpec(name="small-resnet", width=2), 3, [0.5], [0.2])

def plain(logits, y):
    return nn.functional.cross_entropy(logits, y, reduction="none")

def doubled(logits, y):
    return 2 * plain(logits, y)

def spread(model, x, y, *, loss="ce", batch_size=128, seed=0):
    from robust_flatness.sharpness import Estimate
    return Estimate(0.125)

constant = 3
"""


@pytest.fixture
def own(tmp_path):
    """A module of networks, and data, in the working directory of `run`."""
    (tmp_path / "my_nets.py").write_text(NETS)
    x = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)
    y = np.arange(12) % 3
    np.savez(tmp_path / "my.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    yield tmp_path
    sys.modules.pop("my_nets", None)


@pytest.fixture
def measured(run, own):
    """`measured(...)`: the JSON that a call of `measure` writes."""

    def call(*arguments, **options):
        status, _, err = run(*measure(*arguments, output="mine.json", **options))
        assert status == 0, err
        return json.loads((own / "mine.json").read_text())

    return call


def measure(model="my_nets:good", *settings, **options):
    """The command line; `settings` are those of `--set`."""
    defaults = {"data": "my.npz", "epsilon": "8/255", "examples": 6, "steps": 2, "restarts": 1, "samples": 1}
    given = {f"--{name.replace('_', '-')}": value for name, value in (defaults | options).items()}
    words = [word for option in given.items() for word in option if word is not True]
    return ["measure", "--model", model, *words, *(w for text in settings for w in ("--set", text))]


def test_a_network_is_measured_as_a_checkpoint_is(own, measured):
    """Records of equal weights and images are equal in the workflow and by a user's function."""
    spec = DataSpec(name="npz", path=str(own / "my.npz"), train=9, early_stopping=3, test=9)
    splits = make_splits(spec, 0)
    save_dataset(own / "prepared.safetensors", splits)
    np.savez(own / "same.npz", **{name: splits[name] for name in ("x_train", "y_train", "x_test", "y_test")})
    model = build_model(ModelSpec(name="small-resnet", width=2), 3, [0.5], [0.2], generator(0, "test"))
    save_file(model.state_dict(), own / "kit.safetensors")
    described = Metadata({"name": "small-resnet", "width": 2}, 3, (0.5,), (0.2,), "at", 0, 4)
    save_checkpoint(own / "run/checkpoints/last.safetensors", model, described)
    mine = measured("my_nets:kit", weights="kit.safetensors", data="same.npz", examples=9, train_examples=9)
    job = MeasuringJob(variant="at", checkpoints=("last",), measures=mine["settings"])
    measure_network(job, own / "prepared.safetensors", own / "run", 0, "cpu", 1)
    ours = read_records(own / "run/records.csv")
    assert [*ours["metric"]] == [record["metric"] for record in mine["records"]]
    assert [*ours["value"]] == [record["value"] for record in mine["records"]]
    again = measured("run/checkpoints/last.safetensors", data="same.npz", examples=9, train_examples=9)
    assert again["records"] == mine["records"]
    bounded = replace(described, weight_bound=max(p.abs().max().item() for p in model.parameters()))
    save_checkpoint(own / "run/checkpoints/bounded.safetensors", model, bounded)
    clipped = measured("run/checkpoints/bounded.safetensors", data="same.npz", examples=9, train_examples=9)
    assert clipped["values"]["avg_flatness_rloss"] != mine["values"]["avg_flatness_rloss"]


def test_settings_are_those_of_an_experiment(measured):
    """--set reaches nested settings of one measure, or without its name of all measures that have them."""
    texts = ("attack.step_size=1/255", "flatness.average.xi=[0.25, 0.5]", "worst.restarts=2", "worst.steps=1")
    found = measured("my_nets:good", *texts, batch_size=4, measures="robustness,flatness,layers")
    settings = found["settings"]
    for name in ("robustness", "flatness", "layers"):
        assert settings[name]["attack"]["step_size"] == 1 / 255
        assert settings[name]["test_examples"] == 6
    assert settings["flatness"]["average"]["xi"] == [0.25, 0.5]
    assert settings["layers"]["average"] | {"xi": [0.25, 0.5]} == settings["flatness"]["average"]
    assert settings["flatness"]["worst"]["restarts"] == 2
    assert settings["flatness"]["worst"]["batch_size"] == 4
    assert settings["layers"]["worst"] is None
    assert settings["robustness"]["autoattack"] is None


def test_curvature_of_a_network_and_a_picture_of_its_spectrum(measured, own):
    given = ("curvature.vectors=2", "density.vectors=1", "steps=3")
    found = measured("my_nets:good", *given, measures="curvature,density", picture="mine.png")
    assert {record["measure"] for record in found["records"]} == {"curvature", "density"}
    assert Image.open(own / "mine.png").width > 1000


BAD_OPTIONS = [
    {"epsilon": "0"}, {"epsilon": "8/0"}, {"mean": "a"}, {"examples": 13}, {"train_examples": 13},
    {"epsilon": "2"}, {"data": "missing.npz"}, {"measures": "robustnes"}, {"measures": "series"},
    {"measures": ","}, {"measures": "robustness,hessian", "examples": 12}, {"measures": "sharpness"},
    {"device": "gpu"}, {"picture": "mine.gif"}, {"picture": "mine.png", "measures": "robustness"},
    {"output": "folder"}, {"against": "missing.csv"}, {"size": 8}, {"weights": "missing.safetensors"},
    {"weights": "bomb.pt"}, {"set": "average.samples=0"}, {"set": "averag.samples=3"},
    {"set": "hessian.eigenvalues=4"}, {"set": "average.samples"}, {"set": "average.xi=[0.5"},
    {"model": "my_nets"}, {"model": "nothing:good"}, {"model": "my_nets:constant"},
    {"model": "my_nets:needs_arguments"}, {"model": "my_nets:images"}, {"model": "my_nets:not_a_number"},
    {"snapshot": "bomb.pt", "measures": "plane"}, {"snapshot": "bomb.pt"}, {"loss": "my_nets:nothing"},
    {"loss": "my_nets:constant"}, {"loss": "my_nets:plain", "picture": "mine.png"},
    {"autoattack": True, "measures": "flatness"},
    {"loss": "my_nets:plain", "measures": "sharpness", "train_examples": 4},
]  # fmt: skip


@pytest.mark.parametrize("options", BAD_OPTIONS, ids=str)
def test_bad_options_and_networks_are_refused_before_anything_is_measured(refused, own, monkeypatch, options):
    class Bomb:
        def __reduce__(self):
            return (open, (str(own / "exploded"), "w"))

    torch.save({"x": Bomb()}, own / "bomb.pt")
    (own / "folder").mkdir()
    monkeypatch.setattr(own_model, "kept_part", lambda *_, **__: pytest.fail("measured"))
    ((name, value),) = [*options.items()][:1]
    message = refused([], *measure(**options))
    assert any(word in message for word in (name, *re.split("[=,]", str(value))[:2]) if word)
    assert not (own / "exploded").exists()


def test_values_of_single_examples_average_to_the_records(measured, own):
    options = {"per_example": "each.csv", "train_examples": 4}
    texts = ("autoattack.version=reduced", "autoattack.attacks=apgd-ce,fab-t")
    values = measured("my_nets:good", *texts, **options)["values"]
    rows = read_csv(own / "each.csv").to_dict("records")
    assert [row["split"] for row in rows] == ["test"] * 6 + ["train"] * 4
    columns = {"ce": "ce", "rloss": "rloss_pgd", "rloss_aa": "rloss_aa"}
    columns |= {name: name for name in ("err", "rerr_pgd", "rerr_aa")}
    for split in ("test", "train"):
        for column, name in columns.items():
            mean = np.mean([float(row[column]) for row in rows if row["split"] == split])
            expected = values[f"{split}_{name}"]
            assert mean * (100 if "err" in column else 1) == pytest.approx(expected, rel=1e-5)
    for row in rows:
        assert (row["label"] != row["prediction"]) == (row["err"] == "1")
        assert float(row["rloss"]) >= float(row["ce"])


def test_a_table_in_words_is_printed(run, own):
    """Every measure with its standard error, each layer, a user's measure; nothing is left behind."""
    texts = ("sharpness.own.spread=my_nets:spread", "sharpness.measures=fisher_trace", "layers.worst.steps=1")
    options = {"measures": "robustness,flatness,sharpness", "train_examples": 4}
    status, out, err = run(*measure("my_nets:good", *texts, **options), "--per-layer")
    assert status == 0, err
    assert all(text in out for text in ("test RLoss ", "Fisher", "1.bias alone", "spread, RLoss "))
    assert not (own / ".resume").exists()


def test_the_norm_is_in_settings_and_records(measured):
    """A radius above 1 is possible in the L2 norm alone."""
    result = measured(norm="l2", epsilon="1.5")
    attack = result["settings"]["flatness"]["attack"]
    assert (attack["norm"], attack["epsilon"], attack["step_size"]) == ("l2", 1.5, 0.375)
    attacked = [record for record in result["records"] if record["epsilon"] is not None]
    assert {(record["norm"], record["epsilon"]) for record in attacked} == {("l2", 1.5)}
    assert {record["norm"] for record in measured()["records"]} == {""}


@pytest.mark.parametrize("against", ["models.csv", "experiment"])
def test_a_network_is_ranked_among_others(run, own, against):
    """By rank and percentile, with the radii that differ, in a table or an experiment."""
    rows = "".join(f"v{i},last,{loss},0.5\n" for i, loss in enumerate((0.01, 99, 98, 97)))
    (own / "models.csv").write_text("variant,checkpoint,test_rloss_pgd,setting_epsilon\n" + rows)
    import_table(own / "models.csv", own / "experiment")
    status, out, err = run(*measure(against=against))
    assert status == 0, err
    printed, _, ours = out.partition(f"Among {against}:")
    assert "of 75 (" in printed
    assert "measured otherwise" not in printed
    assert "rank 2 of 5 (the others 0.01 to 99; 25% lie below)" in ours
    assert "ε = 0.5 there, 8/255 here" in ours
    _, out, _ = run(*measure(against=against, norm="l2", epsilon="0.5"))
    assert "ε = 8/255 there, 0.5 (L2) here" in out
    assert "ε = 0.5 there, 0.5 (L2) here" in out


def test_a_value_that_is_not_a_number_has_no_rank():
    models = pd.DataFrame({"test_rloss_pgd": [1.0, 2.0], "avg_flatness_rloss": [0.1, 0.2]})
    (line,) = place.places({"test_rloss_pgd": 1.5, "avg_flatness_rloss": math.nan}, models)
    assert "RLoss: 1.5, rank 2 of 3" in line


@pytest.mark.parametrize(("value", "se", "count"), [(-0.1, 0.01, 1), (-0.01, 0.01, 0), (-0.01, None, 1)])
def test_negative_flatness_beyond_its_error_is_warned_of(value, se, count):
    record = Record("avg_flatness", value, se, loss="rloss", split="test", xi=0.5)
    warnings = [*own_model.implausible([{"measure": "flatness"} | record._asdict()], {})]
    assert len(warnings) == count
    assert all("average-case flatness in RLoss (ξ = 0.5) is negative" in warning for warning in warnings)


def test_warnings_are_printed_and_stored(run, own):
    """Also for measures that are taken from an earlier run."""
    for _ in range(2):
        status, _, err = run(*measure("my_nets:soft", output="mine.json"))
        assert status == 0
        warnings = json.loads((own / "mine.json").read_text())["warnings"]
        assert any("probabilities" in warning for warning in warnings)
        assert any("most frequent class" in warning for warning in warnings)
        assert "no --weights: the network is measured as my_nets:soft returns it" in warnings
        assert all(err.count(f"warning: {warning}") == 1 for warning in warnings)


def test_an_interrupted_run_resumes_to_the_same_bytes(run, own, monkeypatch):
    """Finished measures, and finished parts of an unfinished one, are not measured again."""

    def fails(*_, **__):
        raise KeyboardInterrupt

    assert run(*measure(output="whole.json"))[0] == 0
    with monkeypatch.context() as patched:
        patched.setattr("robust_flatness.measures.cases.worst_flatness", fails)
        assert run(*measure(output="mine.json"))[0] != 0
    assert not (own / "mine.json").exists()
    monkeypatch.setattr("robust_flatness.measures.cases.average_flatness", fails)
    monkeypatch.setattr("robust_flatness.measures.robustness.robust_records", fails)
    status, _, err = run(*measure(output="mine.json"))
    assert status == 0, err
    assert "robustness: taken from an earlier run" in err
    assert (own / "mine.json").read_bytes() == (own / "whole.json").read_bytes()


def test_another_function_of_equal_weights_and_outputs_is_measured_anew(measured, own):
    """Its gradient is another one."""
    first = measured()["values"]
    mirrored = """
class Mirrored(nn.Flatten):
    def forward(self, x):
        return super().forward(x.detach() + x.flip(-1) - x.flip(-1).detach())
"""
    nets = NETS.replace("nn.Flatten(), nn.Linear(64, 3)", "Mirrored(), nn.Linear(64, 3)")
    (own / "my_nets.py").write_text(nets + mirrored)
    sys.modules.pop("my_nets")
    assert measured()["values"]["test_rloss_pgd"] != first["test_rloss_pgd"]


EVERY = "robustness,flatness,layers,other_radii,hessian,landscape,plane"
FEW = ["landscape.random_directions=1", "landscape.adversarial_directions=1", "landscape.points=3"]
FEW += ["plane.points=3", "landscape.adversarial_steps=2", "worst.restarts=1", "average.clean_samples=2"]


def test_a_loss_of_ones_own_is_measured_by_every_measure_and_named(run, measured):
    """Double of the cross-entropy as a user's function doubles every loss."""
    default = measured("my_nets:good", *FEW, measures=EVERY)
    doubled = measured("my_nets:good", *FEW, measures=EVERY, loss="my_nets:doubled")
    assert (doubled["notes"]["loss"], "loss" in default["notes"]) == ("my_nets:doubled", False)
    settings = {"average_xi", "worst_xi", "numbers", "convexity"}
    for first, second in zip(default["records"], doubled["records"], strict=True):
        if first["metric"] not in settings:
            factor = 1 if first["metric"].startswith(("err", "rerr")) else 2
            assert second["value"] == pytest.approx(factor * first["value"], rel=2e-3, abs=2e-5), first
    out = run(*measure(loss="my_nets:doubled"))[1]
    assert "loss of my_nets:doubled" in out
    assert "rank" not in out.replace("Not ranked", "")


def test_a_plane_through_snapshots_is_measured_and_drawn(run, own):
    """Other snapshots give another plane; equal ones are taken from the earlier run."""

    def records(*seeds):
        words = [word for seed in seeds for word in ("--snapshot", f"{seed}.pt")]
        settings = ["plane.points=3", "plane.attack.steps=1"]
        options = {"measures": "plane", "output": "mine.json", "picture": "plane.png"}
        status, _, err = run(*measure("my_nets:good", *settings, **options), *words)
        assert status == 0, err
        return json.loads((own / "mine.json").read_text())["records"], err

    for seed in (1, 2, 3):
        torch.manual_seed(seed)
        torch.save({"1.weight": torch.randn(3, 64), "1.bias": torch.randn(3)}, own / f"{seed}.pt")
    first, _ = records(1, 2, 3)
    assert [r["metric"] for r in first].count("plane") == 2 * 3**2
    assert [r["value"] for r in first if r["metric"] == "path"] == [0, 1, 2]
    assert Image.open(own / "plane.png").width > 1000
    again, err = records(1, 2, 3)
    assert (again, "taken from an earlier run" in err) == (first, True)
    other, err = records(1, 2)
    assert "snapshots" in err
    assert other != first


def test_a_folder_of_images_is_measured(run, own):
    for name in ("cat", "dog"):
        (own / "images" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("L", (12, 8), 40 * number).save(own / "images" / name / f"{number}.png")
    status, _, err = run(*measure(data="images", size=8, measures="robustness"))
    assert status == 0, err
    assert "classes: cat 0, dog 1" in err
