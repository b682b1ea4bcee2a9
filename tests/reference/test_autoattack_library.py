"""Our run of AutoAttack against the library's own."""

import logging

import torch
from pyautoattack import AutoAttack
from torch import nn

from robust_flatness.attacks.autoattack import run_autoattack
from robust_flatness.config import AutoAttackSpec, ModelSpec
from robust_flatness.models import build_model
from robust_flatness.models.inference import InferenceModel
from robust_flatness.seeding import derive_seed


def test_same_survivors_as_the_library():
    g = torch.Generator().manual_seed(0)
    model = build_model(ModelSpec(name="small-resnet", width=4), 5, [0.5], [0.3], g)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_var.fill_(0.2)
    net = InferenceModel(model)
    x = torch.rand(30, 1, 8, 8, generator=g)
    y = net(x).argmax(dim=1)
    spec = AutoAttackSpec(version="reduced", attacks=["apgd-ce", "apgd-t"], iterations=5, target_classes=4)
    ours = run_autoattack(model, x, y, 0.02, spec, batch_size=16, seed=1)

    logging.getLogger("auto-attack").disabled = True
    survivors = torch.arange(len(x))
    for name in spec.attacks:
        library = AutoAttack(
            net, attacks=[name], eps=0.02, version="custom", seed=derive_seed(1, "autoattack", name)
        )
        for attack in (library.apgd, library.apgd_targeted):
            attack.n_iter = attack.n_iter_orig = 5
            attack.n_restarts = 1
        library.apgd_targeted.n_target_classes = 4
        with torch.random.fork_rng():
            _, found = library.run_standard_evaluation(x[survivors], y[survivors], batch_size=16)
        survivors = survivors[found == y[survivors]]
    assert 0 < len(survivors) < len(x)
    assert torch.equal((~ours.error).nonzero().flatten(), survivors)
