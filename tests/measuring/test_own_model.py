"""What numbers of one's own network say of themselves."""

import pytest
import torch
from torch import nn

from robust_flatness.measuring.own_model import doubts, in_own_type

LEARNT = {"test": {"label": [0, 1] * 50, "err": [0] * 90 + [1] * 10}}


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
