"""The block `sharpness`: records on both losses and splits, shared attacks, measures of the user."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from robust_flatness import sharpness as library
from robust_flatness.architectures import build_model
from robust_flatness.attacks import PGD
from robust_flatness.config import DataSpec, ModelSpec
from robust_flatness.data import Dataset
from robust_flatness.errors import ConfigError, UndefinedError, noted_warnings
from robust_flatness.measures.base import Examples
from robust_flatness.measures.sharpness import block
from robust_flatness.network import Network
from robust_flatness.seeding import derive_seed, generator

ATTACK = {"epsilon": 0.1, "step_size": 0.05, "steps": 2}
QUICK = {"vectors": 2, "samples": 2, "steps": 2, "adaptive_steps": 2, "halvings": 2}


def network(seed=5):
    spec = ModelSpec(name="small-resnet", width=4)
    return build_model(spec, 3, (0.4,), (0.3,), generator(seed, "initialisation")).eval()


def settings(**values):
    return block.SharpnessSettings(attack=ATTACK, train_examples=16, **QUICK | values)


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    images = {f"x_{s}": rng.integers(0, 256, (16, 1, 8, 8), dtype=np.uint8) for s in ("train", "test")}
    labels = {f"y_{s}": rng.integers(0, 3, 16) for s in ("train", "test")}
    return Dataset(images | labels)


@pytest.fixture
def values(dataset):
    """Values of the records by metric, loss and split."""

    def measure(chosen, model=None, seed=0):
        start = dict(network().named_parameters())
        data = Examples(dataset, seed=seed, initial_weights=lambda: start)
        records = list(block.sharpness(Network(model or network()), data, chosen))
        return {(record.metric, record.loss, record.split): record.value for record in records}

    return measure


def test_every_measure_is_taken_on_both_splits_and_losses(values):
    found = values(settings(test_examples=8))
    of_losses = {*itertools.product(block.OF_LOSSES, ("ce", "rloss"), ("train", "test"))}
    assert found.keys() == of_losses | {(name, "", "") for name in block.OF_WEIGHTS}
    assert block.METRICS.keys() == {*block.NAMES}
    assert all(np.isfinite(value) for value in found.values())
    assert found["distance_from_init", "", ""] == 0  # before training


def test_values_are_those_of_the_library(values, dataset):
    found = values(settings(measures="fisher_rao,sam_one_step,pacbayes_sigma"), seed=3)
    x, y, attack = dataset.images("train"), dataset.labels("train"), PGD(0.1, 0.05, 2)
    calls = {
        "fisher_rao": (library.fisher_rao, {}),
        "sam_one_step": (library.sam, {"steps": 1}),
        "pacbayes_sigma": (library.pacbayes_sigma, {"samples": 2, "iterations": 2}),
    }
    for name, (function, options) in calls.items():
        for key, loss in {"ce": "ce", "rloss": attack}.items():
            alone = function(network(), x, y, loss=loss, seed=derive_seed(3, "sharpness"), **options)
            assert found[name, key, "train"] == alone.value


def test_test_examples_may_be_measured_by_fewer_measures(values):
    chosen = settings(measures="margin,fisher_rao", test_examples=8)
    fewer = chosen.model_copy(update={"test_measures": ("margin",)})
    every = values(chosen)
    assert values(fewer) == {k: v for k, v in every.items() if (k[0], k[2]) != ("fisher_rao", "test")}
    least, all_of_them = settings(measures="margin").passes(0), settings().passes(0)
    assert least < fewer.passes(0) < chosen.passes(0) < all_of_them / 10


class Vector(nn.Module):
    """A network without a matrix, or a linear layer at its end."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(63))

    def forward(self, x):
        return (x.flatten(1)[:, :63] * self.scale).view(len(x), 3, 21).sum(2)


def test_what_is_not_defined_for_a_network_is_left_out_of_all_and_an_error_by_name(dataset):
    net, undefined = Network(Vector()), {"relative_flatness", "spectral_product"}
    with noted_warnings(show=False) as notes:
        found = {record.metric for record in block.sharpness(net, Examples(dataset), settings())}
    assert {note.partition(":")[0] for note in notes} == undefined
    assert found == {*block.NAMES} - undefined - {"distance_from_init"}  # its initial weights are unknown
    for name in undefined:
        with pytest.raises(UndefinedError, match="model: "):
            list(block.sharpness(net, Examples(dataset), settings(measures=name)))


@pytest.mark.parametrize("returned", [3.0, library.Estimate(torch.tensor(3.0))])
def test_an_own_measure_that_returns_no_estimate_is_named(dataset, monkeypatch, returned):
    monkeypatch.setattr(math, "two", lambda *given, **options: returned, raising=False)
    chosen = settings(measures="sam", own={"two": "math:two"})
    with pytest.raises(ConfigError, match=r"math:two returned .*expected an Estimate"):
        [*block.sharpness(Network(Vector()), Examples(dataset), chosen)]


@pytest.mark.parametrize("given", [
    *({"own": {name: "a:b"}} for name in ("sam", "avg_flatness", "train", "test_two", "two_se", "rerr_aa")),
    {"own": {"fine": "a.b"}}, {"test_measures": "sam"},
    {"test_measures": [], "test_examples": 8},
    {"measures": "sam", "test_measures": "asam", "test_examples": 8},
])  # fmt: skip
def test_problems_are_reported_before_anything_runs(given):
    splits = DataSpec(name="digits", train=50, early_stopping=50, test=50)
    assert [*settings(**given).problems(splits)]
    assert not [*settings(test_measures="sam", test_examples=8).problems(splits)]
