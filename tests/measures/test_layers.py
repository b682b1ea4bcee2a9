"""Flatness with one layer perturbed at a time."""

import copy

import pytest
import torch
from torch import nn

from robust_flatness.attacks import PGD
from robust_flatness.config import AttackSpec
from robust_flatness.data import Dataset
from robust_flatness.errors import ConfigError
from robust_flatness.flatness import Neighborhood, average_flatness, perturbed_parameters, worst_flatness
from robust_flatness.measures.examples import Examples
from robust_flatness.measures.flatness import AverageSettings, FlatnessSettings, WorstSettings, flatness
from robust_flatness.measures.layers import LayersSettings, layers
from robust_flatness.network import Network
from robust_flatness.seeding import generator

XI = 0.4


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3))
    return net.double().eval(), torch.rand(10, 1, 4, 4, dtype=torch.float64), torch.arange(10) % 3


@pytest.mark.parametrize("attack", [None, PGD(0.1, 0.05, 3, restarts=2)])
def test_average_case_of_a_layer_equals_perturbing_it_by_hand(tiny, attack):
    """Each perturbation is added to one tensor of a copy of the network, and the copy attacked."""
    model, x, y = tiny
    ball = Neighborhood(Network(model, x), XI)
    for index, name in enumerate(perturbed_parameters(model)):
        losses = []
        for sample in range(4):
            nu = ball.on_sphere(generator(5, "directions", sample, 0))[index]
            moved = copy.deepcopy(model)
            with torch.no_grad():
                moved.get_parameter(name).add_(nu)
                loss = nn.functional.cross_entropy(moved(x), y)
            if attack is not None:
                starts = generator(5, "starts", sample)
                loss = attack.with_restarts(1)(moved, x, y, generator=starts).loss.mean()
            losses.append(loss)
        result = average_flatness(model, x, y, attack=attack, xi=XI, samples=4, seed=5, layers=[name])
        torch.testing.assert_close(result.perturbed, torch.stack(losses).double(), rtol=1e-10, atol=1e-12)
        expected = torch.stack(losses).mean().item() - result.reference
        assert result.value == pytest.approx(expected, abs=1e-10)


def test_naming_all_layers_changes_nothing_and_an_unknown_one_is_an_error(tiny):
    model, x, y = tiny
    with pytest.raises(ConfigError, match=r"1\.weight"):
        average_flatness(model, x, y, attack=None, layers=["1.weight"])
    for measure, few in ((average_flatness, {"samples": 2}), (worst_flatness, {"restarts": 2})):
        every = measure(model, x, y, attack=None, xi=0.01, **few)
        named = measure(model, x, y, attack=None, xi=0.01, layers=perturbed_parameters(model), **few)
        assert torch.equal(every.perturbed, named.perturbed)


def random_images():
    images = torch.randint(0, 256, (8, 1, 4, 4), dtype=torch.uint8).numpy()
    return Dataset({"x_test": images, "y_test": (torch.arange(8) % 3).numpy(), "classes": 3})


def test_the_measure_of_a_network_with_one_layer_is_its_flatness():
    torch.manual_seed(0)
    net = Network(nn.Sequential(nn.Flatten(), nn.Linear(16, 3, bias=False)))
    dataset = random_images()
    parts = {
        "attack": AttackSpec(epsilon=0.1, step_size=0.05, steps=2, restarts=2),
        "test_examples": 8,
        "average": AverageSettings(xi=(XI,), samples=3, clean_samples=1),
        "worst": WorstSettings(xi=(0.01,), restarts=2),
    }
    records = list(layers(net, Examples(dataset), LayersSettings(**parts)))
    assert records[0][:2] == ("numbers", 48)
    assert {record.coordinate for record in records} == {"1.weight"}
    whole = flatness(net, Examples(dataset), FlatnessSettings(**parts, train_examples=0))
    whole = {record.metric: record for record in whole if record.loss == "rloss"}
    assert [record.metric for record in records[1:]] == ["avg_flatness", "avg_flatness_std", "worst_flatness"]
    assert all(record._replace(coordinate="") == whole[record.metric] for record in records[1:])
