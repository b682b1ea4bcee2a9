"""Our run of AutoAttack against the library's own."""

import logging
import math

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from torch import nn

from robust_flatness.architectures import build_model
from robust_flatness.attacks.apgd import run_apgd
from robust_flatness.config import ModelSpec
from robust_flatness.network import Network


def problem(count):
    g = torch.Generator().manual_seed(0)
    model = build_model(ModelSpec(name="small-resnet", width=4), 5, [0.5], [0.3], g)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_var.fill_(0.2)
    net = Network(model)
    x = torch.rand(count, 1, 8, 8, generator=g)
    return net, x, net(x).detach().argmax(dim=1)


@pytest.mark.parametrize("iterations", [1, 20])
@pytest.mark.parametrize("targets", [None, 3])
@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.01), ("linf", 0.03), ("l2", 0.05), ("l2", 0.15)])
def test_apgd_fools_the_same_examples_as_the_authors_code(iterations, targets, norm, epsilon):
    net, x, y = problem(60)
    budget = {"n_iter": iterations, "n_restarts": 2, "eps": epsilon, "seed": 5, "device": "cpu"}
    budget["norm"] = {"linf": "Linf", "l2": "L2"}[norm]
    if targets is None:
        attack = APGDAttack(net, **budget)
    else:
        silent = logging.Logger("silent", level=logging.CRITICAL + 1)
        attack = APGDAttack_targeted(net, n_target_classes=targets, logger=silent, **budget)
    with torch.random.fork_rng():
        theirs = attack.perturb(x, y)
    random = torch.Generator().manual_seed(5)
    ours = run_apgd(net, x, y, epsilon, iterations, 2, targets, random, norm)
    fooled = net(ours).argmax(dim=1) != y
    assert torch.equal(fooled, net(theirs).argmax(dim=1) != y)
    assert 0 < fooled.sum() < len(x)
    lengths = (ours - x).flatten(1).norm(math.inf if norm == "linf" else 2, dim=1)
    assert lengths.max() <= epsilon + 1e-6
    assert torch.equal(ours[~fooled], x[~fooled])
