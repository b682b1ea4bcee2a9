"""Classifiers of torchvision with random weights: measured as by the module itself, moved in place.

The quick ones here, all of them with `make test-models`.
"""

import os
from statistics import fmean

import pytest
import torch
from torch.nn import functional as F
from torchvision import models

from robust_flatness.attacks import PGD, random_start
from robust_flatness.evaluation import evaluate_robustness
from robust_flatness.flatness import Neighborhood, average_flatness
from robust_flatness.network import Network
from robust_flatness.seeding import generator

#: Names, and the size of the images.
QUICK = {"resnet18": 32, "mobilenet_v3_small": 32, "squeezenet1_1": 33, "shufflenet_v2_x0_5": 32}
SLOW = {
    "mobilenet_v2": 32, "mnasnet0_5": 32, "regnet_y_400mf": 32, "vgg11_bn": 32, "densenet121": 32,
    "googlenet": 64, "efficientnet_b0": 32, "convnext_tiny": 32, "swin_t": 64, "vit_b_32": 64,
    "inception_v3": 96,
}  # fmt: skip
NAMES = QUICK | (SLOW if os.environ.get("ROBUST_FLATNESS_MODELS") else {})
ATTACK = PGD(epsilon=0.03, step_size=0.015, steps=1)


def made(name, size):
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    options |= {"image_size": size} if name.startswith("vit") else {}
    torch.manual_seed(0)
    model = models.get_model(name, weights=None, num_classes=5, **options)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


@pytest.mark.parametrize("name", NAMES)
def test_measured_as_by_the_module_itself(plain, name):
    model, size = made(name, NAMES[name]), NAMES[name]
    x = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 3, 1])
    robust = evaluate_robustness(model, x, y, attack=ATTACK, autoattack=False)
    flat = average_flatness(model, x, y, attack=None, xi=0.1, samples=1)
    ball = Neighborhood(Network(model, x), 0.1)
    assert not any(".bn" in name or ".norm" in name for name in ball.names)
    start = random_start(x, ATTACK.epsilon, generator(0, "pgd"))
    losses = plain.pgd_losses(model, x, y, [start], ATTACK.epsilon, ATTACK.step_size, 1)
    # pixels whose gradient is zero up to rounding may take the other sign
    assert robust.rloss_pgd == pytest.approx(fmean(losses), rel=2e-3)
    with torch.no_grad():
        for name, shift in zip(ball.names, ball.on_sphere(generator(0, "directions", 0, 0)), strict=True):
            model.get_parameter(name).add_(shift)
        moved = F.cross_entropy(model(x), y).item()
    assert flat.perturbed.item() == pytest.approx(moved, rel=1e-3)
