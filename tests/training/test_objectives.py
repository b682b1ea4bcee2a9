"""Each loss against its formula, written out example by example in float64."""

import math

import pytest
import torch
from torch import nn

from robust_flatness.config import TrainingSpec
from robust_flatness.training.objectives import Batch, make_objective
from robust_flatness.training.objectives.mart import boosted_cross_entropy

CLASSES = 3
LAMBDA = 2.5
TAU = 0.3


def spec(**settings) -> TrainingSpec:
    return TrainingSpec(epsilon=0.1, **settings)


def make_net(outputs: int) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, outputs)).double()
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return net


def make_batch(labels: list[int], smoothing: float = 0.0) -> Batch:
    generator = torch.Generator().manual_seed(2)
    x, shift = torch.rand(2, len(labels), 1, 2, 2, generator=generator, dtype=torch.float64)
    y = torch.tensor(labels)
    return Batch(x, y, y, torch.ones(len(y), dtype=torch.bool), smoothing, x_adv=x + 0.2 * shift)


def probabilities(logits) -> list[float]:
    exponentials = [math.exp(value) for value in logits.tolist()]
    return [value / sum(exponentials) for value in exponentials]


def smoothed(p, label, tau):
    k = len(p)
    return -sum(((1 - tau) * (i == label) + tau / k) * math.log(p[i]) for i in range(k))


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def bce(p, label):
    return -math.log(p[label]) - math.log(1 - max(v for i, v in enumerate(p) if i != label))


def formula(name, net, batch):
    """The objective as method.md states it, without any batched operation."""
    with torch.no_grad():
        clean = [probabilities(row[:CLASSES]) for row in net(batch.x)]
        adversarial = [probabilities(row[:CLASSES]) for row in net(batch.x_adv)]
        rotation = [probabilities(row[CLASSES:]) for row in net(batch.x_adv) if len(row) > CLASSES]
    labels, n, tau = batch.target.tolist(), len(batch.x), batch.smoothing
    triples = zip(clean, adversarial, labels, strict=True)
    if name == "at":
        return sum(smoothed(q, y, tau) for _, q, y in triples) / n
    if name == "trades":
        return sum(smoothed(p, y, tau) + LAMBDA * kl(p, q) for p, q, y in triples) / n
    if name == "mart":
        return sum(bce(q, y) + LAMBDA * kl(p, q) * (1 - p[y]) for p, q, y in triples) / n
    half = n // 2
    classes = sum(smoothed(adversarial[i], labels[i], tau) for i in range(n - half)) / (n - half)
    turns = sum(-math.log(rotation[i][labels[i] - CLASSES]) for i in range(n - half, n)) / half
    return classes + LAMBDA * turns


CASES = [
    ("at", [0, 2, 1, 1, 0], TAU),
    ("trades", [0, 2, 1, 1, 0], TAU),
    ("mart", [0, 2, 1, 1, 0], 0.0),
    ("self-supervision", [0, 2, 1, 3, 6], TAU),
]


@pytest.mark.parametrize(("name", "labels", "smoothing"), CASES)
def test_value_and_gradient_follow_the_formula(name, labels, smoothing):
    objective = make_objective(spec(objective=name, objective_weight=LAMBDA))
    objective.classes = CLASSES
    net = make_net(CLASSES + 4 if name == "self-supervision" else CLASSES)
    batch = make_batch(labels, smoothing)
    loss, logits = objective(net, batch)
    assert loss.item() == pytest.approx(formula(name, net, batch), rel=1e-12)
    torch.testing.assert_close(logits, net(batch.x_adv)[:, :CLASSES])

    loss.backward()
    step = 1e-5  # central differences: error of order step^2, and 1e-16 / step from rounding
    for parameter in net.parameters():
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        for i in range(len(flat)):
            value = flat[i].item()
            flat[i] = value + step
            above = formula(name, net, batch)
            flat[i] = value - step
            below = formula(name, net, batch)
            flat[i] = value
            assert gradient[i].item() == pytest.approx((above - below) / (2 * step), rel=1e-6, abs=1e-8)


def test_mart_is_finite_where_a_wrong_class_has_probability_one():
    """In float32, 1 - p is 0 there; the exact value is the margin in logits."""

    logits = torch.tensor([[0.0, 60.0, -10.0]], requires_grad=True)
    loss = boosted_cross_entropy(logits, torch.tensor([0]))
    assert loss.item() == pytest.approx(60 + 60, rel=1e-6)
    loss.sum().backward()
    assert logits.grad.isfinite().all()


def test_trades_attack_maximises_the_divergence_from_the_clean_prediction():
    objective = make_objective(spec(objective="trades", objective_weight=1))
    net, batch = make_net(CLASSES), make_batch([0, 2, 1])
    target, loss = objective.attack_goal(net, batch)
    assert not target.requires_grad
    with torch.no_grad():
        values = loss(net(batch.x_adv), target)
        pairs = zip(net(batch.x), net(batch.x_adv), strict=True)
        expected = [kl(probabilities(p), probabilities(q)) for p, q in pairs]
    assert values.tolist() == pytest.approx(expected, rel=1e-12)
    zero = loss(net(batch.x), target)
    assert zero.abs().max() < 1e-15


def test_labels_of_rotated_examples_say_how_they_were_rotated():
    objective = make_objective(spec(objective="self-supervision"))
    objective.classes = CLASSES
    x = torch.rand(41, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    y = torch.arange(41) % CLASSES
    batch = Batch(x, y, y, torch.ones(41, dtype=torch.bool))
    prepared = objective.prepare(batch, torch.Generator().manual_seed(3))
    assert torch.equal(prepared.x[:21], x[:21])
    assert torch.equal(prepared.y[:21], y[:21])
    quarters = prepared.y[21:] - CLASSES
    assert sorted(quarters.unique().tolist()) == [0, 1, 2, 3]
    for image, original, k in zip(prepared.x[21:], x[21:], quarters.tolist(), strict=True):
        assert torch.equal(image, original.rot90(k, (1, 2)))
    assert torch.equal(prepared.target, prepared.y)
    assert prepared.counted.tolist() == [True] * 21 + [False] * 20
