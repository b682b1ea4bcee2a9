"""Attacks in the L2 ball, against computations example by example in double precision."""

import math

import pytest
import torch
from pyautoattack.square import SquareAttack
from torch import nn
from torch.nn import functional as F

from robust_flatness.attacks import PGD, project, random_start
from robust_flatness.attacks.autoattack import run_autoattack
from robust_flatness.attacks.ball import steepest
from robust_flatness.attacks.pgd import cross_entropy
from robust_flatness.config import AutoAttackSpec
from robust_flatness.errors import ConfigError
from robust_flatness.flatness import worst_flatness
from robust_flatness.measures.neighborhood import Neighborhood
from robust_flatness.network import Network
from robust_flatness.seeding import generator

EPSILON, STEP = 0.7, 0.3


def network(seed=0):
    """Weights so large that the loss is far from linear in the ball."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    stream = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.7, generator=stream)
    return model


@pytest.fixture
def data():
    stream = torch.Generator().manual_seed(1)
    x = torch.rand(10, 1, 3, 4, dtype=torch.float64, generator=stream)
    return x, torch.randint(0, 4, (10,), generator=stream)


def distance(a, b):
    pairs = zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)
    return math.sqrt(sum((p - q) ** 2 for p, q in pairs))


def projected(z, x):
    """One example, sequentially onto the ball and the box, number by number."""
    shrink = min(1.0, EPSILON / max(distance(z, x), 1e-300))
    pairs = zip(z.flatten().tolist(), x.flatten().tolist(), strict=True)
    moved = [min(1.0, max(0.0, q + shrink * (p - q))) for p, q in pairs]
    return torch.tensor(moved, dtype=torch.float64).view(x.shape)


def stepped(x_adv, gradient, x):
    return projected(x_adv + STEP * gradient / distance(gradient, torch.zeros_like(gradient)), x)


def iterates(model, x, y, start, steps):
    """The iterates of one example [1, ...] from `start`, and their losses."""
    found, losses, current = [], [], start
    for _ in range(steps + 1):
        current = current.detach().requires_grad_()
        loss = F.cross_entropy(model(current), y)
        (gradient,) = torch.autograd.grad(loss, current)
        found.append(current.detach())
        losses.append(loss.item())
        current = stepped(current.detach(), gradient, x)
    return torch.cat(found), losses


def test_the_projection_is_onto_the_ball_and_then_onto_the_box(data):
    x, _ = data
    far = x + torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = project(far, x, EPSILON, "l2")
    expected = torch.stack([projected(z, centre) for z, centre in zip(far, x, strict=True)])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    inside = x + 0.1 * (0.5 - x)
    torch.testing.assert_close(project(inside, x, EPSILON, "l2"), inside, rtol=0, atol=1e-15)
    assert torch.equal(project(x, x, EPSILON, "l2"), x)


def test_iterates_are_those_of_a_plain_loop(data):
    (x, y), model, seen = data, network(), []

    def recording(logits, target):
        losses = cross_entropy(logits, target)
        seen.append(losses.detach().clone())
        return losses

    attack = PGD(EPSILON, STEP, 5, norm="l2")
    start = attack.start(x, torch.Generator().manual_seed(4))
    found = attack.search(Network(model, x), x, y, start, recording)
    for i in range(len(x)):
        one = slice(i, i + 1)
        points, losses = iterates(model, x[one], y[one], start[one], 5)
        assert [loss[i].item() for loss in seen] == pytest.approx(losses, rel=1e-9)
        best = max(range(6), key=losses.__getitem__)
        torch.testing.assert_close(found.x_adv[i], points[best], rtol=0, atol=1e-9)
        for point in points:
            assert distance(point, x[i]) <= EPSILON + 1e-12
            assert 0 <= point.min() <= point.max() <= 1
    # the ball, the box and neither of them bind
    lengths = (found.x_adv - x).flatten(1).norm(dim=1)
    assert (lengths > EPSILON - 1e-9).any()
    assert ((found.x_adv == 0) | (found.x_adv == 1)).any()


def test_starts_are_uniform_in_the_ball():
    """In three dimensions: (r / epsilon)^3 is uniform and the mean is the centre, within five standard errors
    of 20,000 draws."""
    x, n = torch.full((20_000, 3), 0.5, dtype=torch.float64), 20_000
    delta = random_start(x, 0.4, torch.Generator().manual_seed(0), "l2") - x
    share = (delta.norm(dim=1) / 0.4) ** 3
    assert share.max() <= 1 + 1e-12
    assert abs(share.mean() - 1 / 2) < 5 * (1 / 12 / n) ** 0.5
    assert abs(share.square().mean() - 1 / 3) < 5 * (4 / 45 / n) ** 0.5
    # each coordinate has the variance epsilon^2 / 5
    assert (delta.mean(dim=0).abs() < 5 * (0.4**2 / 5 / n) ** 0.5).all()


def test_a_step_has_its_length_however_small_the_gradient():
    gradient = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    directions = [steepest(gradient * scale, "l2") for scale in (1.0, 1e-30, 1e-36)]
    for direction in directions:
        torch.testing.assert_close(direction.flatten(1).norm(dim=1), torch.ones(3))
        torch.testing.assert_close(direction, directions[0], rtol=1e-4, atol=1e-6)
    assert not steepest(torch.zeros(2, 3), "l2").any()


def test_worst_case_flatness_is_that_of_a_plain_loop(data):
    """Joint steps of weights and inputs; the L2 norm of every layer's perturbation is bounded as ever."""
    (x, y), model, xi, steps = data, network(), 0.02, 4
    attack = PGD(EPSILON, STEP, 3, norm="l2")
    options = {"steps": steps, "restarts": 1, "batch_size": 10, "seed": 6, "reference": 0.0}
    result = worst_flatness(model, x, y, attack=attack, xi=xi, weight_step=0.01, **options)
    ball = Neighborhood(Network(model, x), xi)
    nu = dict(zip(ball.names, ball.in_ball(generator(6, "worst directions", 0, 0)), strict=True))
    current = attack.start(x, generator(6, "worst starts", 0))
    original = dict(model.named_parameters())

    def loss(inputs):
        moved = network()
        for name, parameter in moved.named_parameters():
            parameter.data += nu[name]
        return F.cross_entropy(moved(inputs), y), dict(moved.named_parameters())

    for _ in range(steps):
        current.requires_grad_()
        value, parameters = loss(current)
        value.backward()
        pairs = zip(current.detach(), current.grad, x, strict=True)
        current = torch.stack([stepped(point, gradient, centre) for point, gradient, centre in pairs])
        for name, weight in original.items():
            gradient, size = parameters[name].grad, weight.norm().item()
            nu[name] = nu[name] + 0.01 * size * gradient / gradient.norm()
            nu[name] = nu[name] * min(1.0, xi * size / nu[name].norm().item())
    assert result.value == pytest.approx(loss(current)[0].item(), rel=1e-9)


def test_autoattack_finds_admissible_examples_and_not_fewer_than_pgd():
    x = torch.rand(30, 1, 6, 2, generator=torch.Generator().manual_seed(7))
    model = network().float()
    y = model(x).argmax(dim=1)
    spec = AutoAttackSpec(version="reduced", iterations=20, queries=200, target_classes=3)
    result = run_autoattack(model, x, y, 0.3, spec, norm="l2")
    lengths = (result.x_adv - x).flatten(1).norm(dim=1)
    assert lengths.max() <= 0.3 + 1e-6
    assert 0 <= result.x_adv.min() <= result.x_adv.max() <= 1
    assert torch.equal(model(result.x_adv).argmax(dim=1) != y, result.error)
    assert 0 < result.error.sum() < len(x)
    # perturbations as long as these are in no L-infinity ball of a radius of 0.3 / sqrt(12)
    assert (result.x_adv - x).abs().max() > 0.3 / 12**0.5
    by_pgd = PGD(0.3, 0.075, 20, norm="l2")(model, x, y)
    assert by_pgd.error.any()
    assert result.error.sum() >= by_pgd.error.sum() - 1  # their random starts differ


@pytest.mark.parametrize(
    "shape", [(3, 4), (4, 4), (5, 5), (8, 8), (12, 12), (14, 14), (16, 16), (20, 21), (28, 28)]
)
def test_square_runs_or_its_images_are_refused(shape):
    """The library's own start in the L2 norm fails on images of some sizes."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1], 4))
    x = torch.rand(2, 1, *shape, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(dim=1)
    square = SquareAttack(model, norm="L2", eps=0.1, n_queries=2, seed=0, device="cpu")
    spec = AutoAttackSpec(version="reduced", attacks=["square"], queries=2)
    try:
        square.perturb(x, y)
    except (ZeroDivisionError, RuntimeError):
        with pytest.raises(
            ConfigError, match=f"Square in the L2 norm fails on images of {shape[0]}x{shape[1]}"
        ):
            run_autoattack(model, x, y, 0.1, spec, norm="l2")
    else:
        assert run_autoattack(model, x, y, 0.1, spec, norm="l2").x_adv.shape == x.shape
