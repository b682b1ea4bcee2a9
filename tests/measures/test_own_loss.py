"""Losses of a user's own in place of the cross-entropy."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robust_flatness.attacks import PGD
from robust_flatness.errors import NonFiniteError
from robust_flatness.evaluation import evaluate_robustness
from robust_flatness.flatness import Neighborhood, average_flatness, hessian_eigenvalues, worst_flatness
from robust_flatness.network import Network
from robust_flatness.seeding import generator

EPSILON, XI = 0.05, 0.3
ATTACK = PGD(EPSILON, EPSILON / 2, 5)


def plain(logits, y):
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits, y):
    """Logit of the other of two classes minus that of the label."""
    return logits.gather(1, 1 - y[:, None])[:, 0] - logits.gather(1, y[:, None])[:, 0]


def squares(logits, y):
    return (logits - F.one_hot(y, logits.shape[1])).square().sum(1) / 2


MEASURES = {
    "average": lambda *data, **o: average_flatness(*data, samples=2, **o).perturbed.tolist(),
    "worst": lambda *data, **o: worst_flatness(*data, restarts=2, steps=3, **o).perturbed.tolist(),
    "robustness": lambda *data, **o: evaluate_robustness(*data, autoattack=False, **o).pgd.loss.tolist(),
    "hessian": lambda *data, attack, **o: hessian_eigenvalues(*data, **o).eigenvalues.tolist(),
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", MEASURES)
def test_cross_entropy_as_ones_own_loss_is_the_default(trained, held_out, name, precision):
    attack = PGD(0.1, 0.025, 4, restarts=2, precision=precision)
    default, own = (MEASURES[name](trained, *held_out, attack=attack, loss=loss) for loss in (None, plain))
    assert own == default


@pytest.fixture
def linear():
    """A linear network of two classes in float64, and inputs whose balls lie in [0, 1]."""
    g = torch.Generator().manual_seed(0)
    model = nn.Linear(6, 2, bias=False, dtype=torch.float64)
    nn.init.normal_(model.weight, generator=g)
    x = 0.1 + 0.8 * torch.rand(7, 6, dtype=torch.float64, generator=g)
    return model, x, torch.arange(7) % 2


def robust_margin(weight, x, y):
    """The highest margin loss in the ball around each input: linear, so an l1 norm."""
    difference = weight[1 - y] - weight[y]
    return (difference * x).sum(1) + EPSILON * difference.abs().sum(1)


def test_flatness_and_robust_loss_of_a_margin_are_those_of_the_closed_form(linear):
    model, x, y = linear
    weight, expected = model.weight.detach(), []
    ball = Neighborhood(Network(model, x), XI)
    for sample in range(3):
        (nu,) = ball.on_sphere(generator(4, "directions", sample, 0))
        expected.append(robust_margin(weight + nu, x, y).mean())
    reference = robust_margin(weight, x, y)
    found = evaluate_robustness(model, x, y, attack=ATTACK, autoattack=False, loss=margin)
    torch.testing.assert_close(found.pgd.loss, reference, rtol=1e-12, atol=1e-12)
    result = average_flatness(model, x, y, attack=ATTACK, xi=XI, samples=3, seed=4, loss=margin)
    torch.testing.assert_close(result.perturbed, torch.stack(expected), rtol=1e-12, atol=1e-12)
    assert result.reference == pytest.approx(reference.mean().item(), rel=1e-12)


def test_worst_case_of_a_margin_is_that_of_the_closed_form(linear):
    """Clean: nu lies along the gradient of the mean margin, which does not depend on the weights."""
    model, x, y = linear
    weight = model.weight.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(margin(x @ weight.T, y).mean(), weight)
    result = worst_flatness(model, x, y, attack=None, xi=0.003, restarts=1, loss=margin)
    expected = 0.003 * weight.norm() * gradient.norm()
    assert result.value == pytest.approx(expected.item(), rel=1e-6)


def test_eigenvalues_of_a_squared_loss_are_those_of_the_inputs(linear):
    model, x, y = linear
    result = hessian_eigenvalues(model, x, y, k=2, tolerance=1e-10, loss=squares)
    expected = torch.linalg.eigvalsh(x.T @ x / len(x))[[0, -1]]
    assert result.eigenvalues[[0, -1]] == pytest.approx(expected.tolist(), rel=1e-8)


@pytest.mark.parametrize(("loss", "words"), [
    (lambda logits, y: plain(logits, y).sum(), "expected finite, differentiable losses"),
    (lambda logits, y: plain(logits, y).tolist(), "expected finite, differentiable losses"),
    (lambda logits, y: plain(logits, y) / 0, "expected finite, differentiable losses"),
    (lambda logits, y: (logits.argmax(1) != y).float(), "expected finite, differentiable losses"),
    (lambda logits: logits, "failed: TypeError"),
    (lambda logits, y: plain(logits.detach().fill_(0) + logits, y), "changes its logits or labels"),
    (lambda logits, y: plain(logits, y.mul_(0)), "changes its logits or labels"),
    (lambda logits, y: plain(logits, y).mean().expand(len(y)), "another loss for an example alone"),
])  # fmt: skip
def test_losses_that_cannot_be_used_are_refused(linear, loss, words):
    for measure in (average_flatness, worst_flatness, evaluate_robustness):
        with pytest.raises(ValueError, match=f"^loss: .*{words}"):
            measure(*linear, attack=ATTACK, loss=loss)


def test_a_loss_is_not_blamed_for_logits_that_are_nan(linear):
    model, x, y = linear
    nn.init.constant_(model.weight, torch.nan)
    with pytest.raises(NonFiniteError, match="model: NaN or infinite logits"):
        evaluate_robustness(model, x, y, attack=ATTACK, loss=plain)
