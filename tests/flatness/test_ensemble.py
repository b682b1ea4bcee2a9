import pytest
import torch
from torch import nn

from robust_flatness.architectures import build_model
from robust_flatness.architectures.ensemble import Ensemble
from robust_flatness.attacks import PGD, random_start
from robust_flatness.config import ModelSpec
from robust_flatness.flatness import average_flatness
from robust_flatness.measures import average as module
from robust_flatness.network import Network


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def resnet(activation="relu"):
    spec = ModelSpec(name="small-resnet", width=4, activation=activation)
    model = build_model(spec, 5, [0.3, 0.4], [0.2, 0.3], generator()).double()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_var.uniform_(0.3, 3, generator=generator(1))
            layer.running_mean.normal_(generator=generator(2))
    return model


class Concatenating(nn.Module):
    """Channels of two branches are concatenated: side by side they would mix."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x):
        return torch.cat([x, self.conv(x)], dim=1).mean(dim=(2, 3))


@pytest.fixture
def x():
    return torch.rand(12, 2, 8, 8, dtype=torch.float64, generator=generator(3))


def members(net, count):
    """Weights of their own for each member."""
    g = generator(4)
    names = [name for name, _ in net.network.named_parameters()]
    return [
        {name: value + 0.1 * torch.randn(value.shape, dtype=value.dtype, generator=g)
         for name, value in zip(names, net.read(names), strict=True)}
        for _ in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("activation", ["relu", "mish"])
@pytest.mark.parametrize("count", [2, 3])
def test_each_member_computes_what_it_would_alone(activation, count, x):
    net = Network(resnet(activation), x)
    ensemble = Ensemble(net, count)
    inputs = x.clone().requires_grad_()
    alone, gradients = [], []
    for member, (weights, part) in enumerate(zip(members(net, count), inputs.chunk(count), strict=True)):
        net.refresh(weights)
        ensemble.take(member)
        alone.append(net.logits(part))
        gradients.append(torch.autograd.grad(alone[-1].square().sum(), inputs)[0])
    together = ensemble.logits(inputs)
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-10, atol=1e-10)
    (found,) = torch.autograd.grad(together.square().sum(), inputs)
    torch.testing.assert_close(found, sum(gradients), rtol=1e-9, atol=1e-10)


def test_bfloat16_follows_the_weights(x):
    net = Network(resnet().float(), x.float())
    ensemble = Ensemble(net, 2)
    for weights in members(net, 2):
        net.refresh(weights)
        ensemble.take(0)
        ensemble.take(1)
        full = net.logits(x.float())
        low = ensemble.logits(x.float(), "bfloat16")
        assert low.dtype == torch.float32
        assert (low - full).abs().max() < 0.05 * full.abs().max()


def test_networks_of_others_are_not_laid_side_by_side(x):
    assert Ensemble.fits(Network(resnet(), x), x)
    assert not Ensemble.fits(Network(Concatenating().double(), x), x)


@pytest.mark.parametrize("attack", [PGD(0.1, 0.04, 4), None], ids=["rloss", "ce"])
@pytest.mark.parametrize("batch_size", [2, 5])
def test_the_measure_is_the_same_side_by_side(attack, batch_size, x, monkeypatch):
    """Eleven examples: groups of unequal size, and a batch that is not full."""
    y = torch.arange(11) % 5
    options = {"attack": attack, "samples": 2, "batch_size": batch_size, "scope": "batch"}
    together = average_flatness(resnet(), x[:11], y, **options)
    monkeypatch.setattr(module, "SIDE_BY_SIDE", 4)
    some = average_flatness(resnet(), x[:11], y, **options)
    monkeypatch.setattr(module, "SIDE_BY_SIDE", 0)
    alone = average_flatness(resnet(), x[:11], y, **options)
    for result in (together, some):
        torch.testing.assert_close(result.perturbed, alone.perturbed, rtol=1e-9, atol=0)


def test_a_network_that_cannot_lie_side_by_side_is_measured_alone(x):
    y = torch.arange(12) % 4
    attack = PGD(0.1, 0.04, 2)
    result = average_flatness(
        Concatenating().double(), x, y, attack=attack, samples=1, batch_size=3, scope="batch"
    )
    assert result.perturbed.isfinite().all()


def test_an_attack_treats_members_as_their_own_networks(x):
    net = Network(resnet(), x)
    ensemble = Ensemble(net, 2)
    y, attack = torch.arange(12) % 5, PGD(0.1, 0.04, 3)
    start = random_start(x, attack.epsilon, generator(5))
    alone = []
    for member, weights in enumerate(members(net, 2)):
        part = slice(6 * member, 6 * member + 6)
        net.refresh(weights)
        ensemble.take(member)
        alone.append(attack.losses(net, x[part], y[part], start[part]))
    torch.testing.assert_close(attack.losses(ensemble, x, y, start), torch.cat(alone), rtol=1e-9, atol=0)
