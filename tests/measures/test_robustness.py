import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robust_flatness.architectures import build_model
from robust_flatness.attacks import PGD
from robust_flatness.config import AutoAttackSpec, ModelSpec
from robust_flatness.evaluation import evaluate_robustness

ATTACK = PGD(epsilon=0.02, step_size=0.01, steps=4, restarts=2)
SPEC = AutoAttackSpec(version="reduced", attacks=["apgd-ce"], iterations=4)


@pytest.fixture(scope="module")
def setup():
    g = torch.Generator().manual_seed(0)
    model = build_model(ModelSpec(name="small-resnet", width=4), 5, [0.5], [0.3], g)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_var.fill_(0.2)
    x = torch.rand(30, 1, 8, 8, generator=g)
    y = model.eval()(x).argmax(dim=1)
    y[:3] = (y[:3] + 1) % 5
    return model, x, y


def test_values_and_their_order(setup):
    model, x, y = setup
    result = evaluate_robustness(model, x, y, attack=ATTACK, autoattack=SPEC)
    logits = model(x).detach()
    assert result.err == pytest.approx(0.1)
    assert result.ce == pytest.approx(F.cross_entropy(logits, y).item(), rel=1e-5)
    assert result.err < result.rerr_pgd < 1
    assert result.err < result.rerr_aa < 1
    assert result.rloss_pgd > result.ce
    assert result.ce < result.rloss_aa < result.rloss_pgd  # AutoAttack stops at the first success
    for losses in (result.clean, result.pgd, result.autoattack):
        assert losses.error.shape == losses.loss.shape == (30,)
        assert losses.error[:3].all()
    assert (result.pgd.loss >= result.clean.loss).all()
    assert (result.pgd.error >= result.clean.error).all()


def test_clean_examples_count_also_if_the_attack_leaves_them_out(setup):
    model, x, y = setup
    attack = PGD(epsilon=1e-6, step_size=1e-7, steps=1, include_clean=False)
    result = evaluate_robustness(model, x, y, attack=attack, autoattack=False)
    assert (result.pgd.loss >= result.clean.loss).all()


def test_attacks_that_are_not_asked_for_are_not_run(setup):
    model, x, y = setup
    clean = evaluate_robustness(model, x, y, attack=None, autoattack=False)
    assert clean.rerr_pgd is clean.rloss_pgd is clean.rerr_aa is clean.rloss_aa is None
    assert clean.err == pytest.approx(0.1)
    with pytest.raises(ValueError, match="autoattack takes its radius"):
        evaluate_robustness(model, x, y, attack=None, autoattack=True)
