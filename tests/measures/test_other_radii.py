"""Robust error at other radii of the attack."""

import numpy as np
import pytest

from robust_flatness.architectures import build_model
from robust_flatness.config import ModelSpec
from robust_flatness.data import Dataset
from robust_flatness.measures.examples import Examples
from robust_flatness.measures.other_radii import METRICS, OtherRadiiSettings, other_radii
from robust_flatness.network import Network
from robust_flatness.seeding import generator


def test_error_grows_with_the_radius():
    model = build_model(ModelSpec(name="small-resnet", width=4), 3, (0.4,), (0.3,), generator(5, "init"))
    rng = np.random.default_rng(0)
    images = {"x_test": rng.integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)}
    data = Examples(Dataset(images | {"y_test": rng.integers(0, 3, 40)}))
    attack = {"epsilon": 0.1, "step_size": 0.05, "steps": 3}
    settings = OtherRadiiSettings(attack=attack, test_examples=40, factors=[0.01, 0.25, 1, 4])
    records = [r for r in other_radii(Network(model), data, settings) if r.metric == "rerr_pgd_eps"]
    assert [record.coordinate for record in records] == [0.01, 0.25, 1, 4]
    assert [record.epsilon for record in records] == pytest.approx([0.001, 0.025, 0.1, 0.4])
    errors = [record.value for record in records]
    assert errors == sorted(errors)
    assert errors[0] < errors[-1]
    assert METRICS["rerr_pgd_eps"].words("test", radius=0.25) == "test RErr, PGD (%) at 0.25 ε"


def test_a_radius_is_never_more_than_the_range_of_inputs():
    attack = {"epsilon": 0.6, "step_size": 0.1, "steps": 3}
    settings = OtherRadiiSettings(attack=attack, test_examples=1)
    assert settings.at(2).epsilon == 1
    assert settings.at(2).step_size == pytest.approx(0.2)
