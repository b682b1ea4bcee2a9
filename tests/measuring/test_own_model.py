"""What numbers of one's own network say of themselves."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from robust_flatness.data import Dataset
from robust_flatness.errors import ConfigError
from robust_flatness.measuring.own_model import doubts, in_own_type, measure_network, own_specs

LEARNT = {"test": {"label": [0, 1] * 50, "err": [0] * 90 + [1] * 10}}

IMPLIED = {"epsilon": 0.1, "step_size": 0.02, "sizes": {"test": 4, "train": 0}}


def found(values, bias=0.0, examples=LEARNT):
    reference = {"reference": 1.0, "reference_single": 1.0 + bias}
    return [*doubts(values, examples, {"flatness": {"details": {"reference_test_rloss": reference}}})]


@pytest.mark.parametrize(("value", "bias", "words"), [
    (-0.1, 0.0, "no minimum"),
    (-0.1, -0.09, "starts once"),
    (-0.01, 0.0, None),  # within its error
    (0.1, 0.0, None),
])  # fmt: skip
def test_average_case_below_zero_beyond_its_error(value, bias, words):
    warnings = found({"avg_flatness_rloss": value, "avg_flatness_rloss_se": 0.01}, bias)
    assert len(warnings) == (words is not None)
    assert all(words in warning and "average-case flatness in RLoss" in warning for warning in warnings)


def test_worst_case_below_zero():
    assert found({"worst_flatness_rloss": 0.01}) == []
    (warning,) = found({"worst_flatness_rloss": -0.01})
    assert "worst-case flatness in RLoss is negative (-0.01)" in warning


def test_a_network_of_another_type_is_left_in_its_mode():
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 3)).double().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    wrapped = in_own_type(network, torch.rand(2, 1, 2, 2))
    assert wrapped is not network
    assert all(module.training for module in network.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_accuracy_of_naming_the_most_frequent_class():
    """That is 70 % here, whatever the number of classes."""
    labels = [0] * 70 + [1] * 20 + [2] * 10
    for wrong, doubted in ((30, True), (25, True), (15, False)):
        examples = {"test": {"label": labels, "err": [1] * wrong + [0] * (100 - wrong)}}
        assert bool(found({}, examples=examples)) == doubted


class Nothing(nn.Module):
    """Without parameters."""

    def forward(self, x):
        return x.flatten(1)[:, :3]


class Once(nn.Module):
    """Logits of a backward pass that cannot be taken by `torch.autograd.grad`."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 3)

    def forward(self, x):
        return checkpoint(self.layer, x.flatten(1), use_reentrant=True)


@pytest.mark.parametrize(
    ("network", "words"), [(Nothing, "nothing can be perturbed"), (Once, "gradient by its inputs cannot")]
)
def test_what_cannot_be_measured_is_refused_before_long_work(network, words, monkeypatch):
    data = Dataset({"x_test": np.full((4, 1, 4, 4), 200, np.uint8), "y_test": np.array([0, 1, 2, 0])})
    names = ["robustness", "flatness"]
    specs = own_specs(names, IMPLIED, {}, {"batch_size": 4})
    monkeypatch.setattr("robust_flatness.measuring.own_model._part", lambda *_: pytest.fail("measured"))
    with pytest.raises(ConfigError, match=words):
        measure_network(network(), data, specs, seed=0, device="cpu")


class Listed(nn.Module):
    """With a layer that only a Python list holds, and one that is held twice."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(8, 3)
        self.hidden, self.again = [nn.Linear(16, 8), nn.BatchNorm1d(8)], [self.last]

    def forward(self, x):
        return self.last(self.hidden[0](x.flatten(1)).relu())


def test_layers_that_only_a_list_holds_are_told():
    data = Dataset({"x_test": np.full((4, 1, 4, 4), 200, np.uint8), "y_test": np.array([0, 1, 2, 0])})
    flatness = {"attack": {"steps": 1, "restarts": 1}, "average": {"samples": 1}, "worst": {"restarts": 1}}
    specs = own_specs(["flatness"], IMPLIED, {"flatness": flatness}, {"batch_size": 4})
    found = measure_network(Listed(), data, specs, seed=0, device="cpu")
    told = [warning for warning in found["warnings"] if "no parameters" in warning]
    assert len(told) == 1
    assert "2 tensors" in told[0]
    assert "hidden[0].weight" in told[0]
