"""Robust error at other radii of the attack."""

import numpy as np
import pytest

from robust_flatness.architectures import build_model
from robust_flatness.checkpoints import Checkpoint, Metadata
from robust_flatness.config import ModelSpec
from robust_flatness.data import Dataset
from robust_flatness.measuring.other_radii import OtherRadiiSpec, other_radii, passes
from robust_flatness.seeding import generator
from robust_flatness.tables import schema


@pytest.fixture(scope="module")
def measured():
    model = ModelSpec(name="small-resnet", width=4)
    network = build_model(model, 3, (0.4,), (0.3,), generator(5, "initialisation")).eval()
    known = Metadata(model.model_dump(), 3, (0.4,), (0.3,), "at", 5, 0)
    rng = np.random.default_rng(0)
    images = {"x_test": rng.integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)}
    dataset = Dataset(images | {"y_test": rng.integers(0, 3, 40)})

    def measure(**values):
        attack = {"epsilon": 0.1, "step_size": 0.05, "steps": 3}
        spec = OtherRadiiSpec(attack=attack, test_examples=40, **values)
        return spec, other_radii(Checkpoint(network, "last", metadata=known), dataset, spec, seed=0).values

    return measure


def test_error_grows_with_the_radius(measured):
    _, values = measured(factors=[0.01, 0.25, 1, 4])
    errors = [values[f"test_rerr_pgd_eps_{factor:g}"] for factor in (0.01, 0.25, 1, 4)]
    assert errors == sorted(errors)
    assert errors[0] < errors[-1]


def test_the_columns_are_known_and_say_the_radius(measured):
    spec, values = measured()
    assert {"test_rerr_pgd_eps_0.25", "test_rerr_pgd_eps_2"} <= values.keys()
    assert all(schema.is_known_column(name) for name in values)
    assert schema.describe("test_rerr_pgd_eps_0.25") == "test RErr, PGD (%) at 0.25 ε"
    assert passes(spec, 0, 0) == 2 * 40 * 3


def test_a_radius_is_never_more_than_the_range_of_inputs():
    attack = {"epsilon": 0.6, "step_size": 0.1, "steps": 3}
    spec = OtherRadiiSpec(attack=attack, test_examples=1)
    assert spec.at(2).epsilon == 1
    assert spec.at(2).step_size == pytest.approx(0.2)
