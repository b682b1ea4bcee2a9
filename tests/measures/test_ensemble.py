"""Perturbed networks side by side compute and are attacked as each would be alone."""

import copy

import pytest
import torch
from torch import nn

from robust_flatness.architectures.folding import Ensemble
from robust_flatness.attacks import PGD
from robust_flatness.flatness import average_flatness
from robust_flatness.measures import cases as module
from robust_flatness.network import Network


@pytest.fixture
def resnet(trained):
    return copy.deepcopy(trained).double()


@pytest.fixture
def x(held_out):
    return held_out[0][:12].double()


class Concatenating(nn.Module):
    """Channels of two branches are concatenated: side by side they would mix."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, x):
        return torch.cat([x, self.conv(x)], dim=1).mean(dim=(2, 3))


def members(net, count):
    """Views of `net` at different weights."""
    g = torch.Generator().manual_seed(4)
    return [
        net.at({name: w + 0.1 * torch.randn(w.shape, dtype=w.dtype, generator=g)
                for name, w in net.weights().items()})
        for _ in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("count", [2, 3])
def test_each_member_computes_what_it_would_alone(count, resnet, x):
    networks = members(Network(resnet, x), count)
    inputs = x.clone().requires_grad_()
    alone = torch.cat([net.logits(part) for net, part in zip(networks, inputs.chunk(count), strict=True)])
    (expected,) = torch.autograd.grad(alone.square().sum(), inputs)
    together = Ensemble(networks).logits(inputs)
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-10)
    (found,) = torch.autograd.grad(together.square().sum(), inputs)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("attack", [PGD(0.1, 0.04, 4), None], ids=["rloss", "ce"])
@pytest.mark.parametrize("batch_size", [2, 5])
def test_the_measure_is_the_same_side_by_side(attack, batch_size, resnet, x, monkeypatch):
    """Eleven examples: groups of unequal size, and a batch that is not full."""
    y = torch.arange(11) % 5
    results = []
    for together in (module.SIDE_BY_SIDE, 4, 0):
        monkeypatch.setattr(module, "SIDE_BY_SIDE", together)
        options = {"attack": attack, "samples": 2, "batch_size": batch_size, "scope": "batch"}
        results.append(average_flatness(resnet, x[:11], y, **options).perturbed)
    for result in results[:2]:
        torch.testing.assert_close(result, results[2], rtol=1e-9, atol=0)


def test_networks_whose_channels_would_mix_are_measured_alone(resnet, x):
    assert Ensemble.fits(Network(resnet, x), x)
    assert not Ensemble.fits(Network(Concatenating().double(), x), x)
    options = {"attack": PGD(0.1, 0.04, 2), "samples": 1, "batch_size": 3, "scope": "batch"}
    result = average_flatness(Concatenating().double(), x, torch.arange(12) % 3, **options)
    assert result.perturbed.isfinite().all()
