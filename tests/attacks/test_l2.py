"""Attacks in the L2 ball; PGD and flatness are compared with a plain implementation in tests/reference."""

import pytest
import torch
from pyautoattack.square import SquareAttack
from torch import nn

from robust_flatness.attacks import PGD, project, random_start
from robust_flatness.attacks.autoattack import run_autoattack
from robust_flatness.attacks.ball import steepest
from robust_flatness.config import AutoAttackSpec
from robust_flatness.errors import ConfigError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_projection_is_onto_the_ball_and_then_onto_the_box():
    x = torch.rand(10, 1, 3, 4, dtype=torch.float64, generator=generator(1))
    far = x + torch.randn(x.shape, dtype=torch.float64, generator=generator(2))
    for found, point, centre in zip(project(far, x, 0.7, "l2"), far, x, strict=True):
        shrink = min(1.0, 0.7 / (point - centre).norm().item())
        expected = (centre + shrink * (point - centre)).clamp(0, 1)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    inside = x + 0.1 * (0.5 - x)
    torch.testing.assert_close(project(inside, x, 0.7, "l2"), inside, rtol=0, atol=1e-15)
    assert torch.equal(project(x, x, 0.7, "l2"), x)


def test_starts_are_uniform_in_the_ball():
    """In three dimensions (r / epsilon)^3 is uniform; within five standard errors of 20,000 draws."""
    x, n = torch.full((20_000, 3), 0.5, dtype=torch.float64), 20_000
    delta = random_start(x, 0.4, generator(), "l2") - x
    share = (delta.norm(dim=1) / 0.4) ** 3
    assert share.max() <= 1 + 1e-12
    assert abs(share.mean() - 1 / 2) < 5 * (1 / 12 / n) ** 0.5
    assert abs(share.square().mean() - 1 / 3) < 5 * (4 / 45 / n) ** 0.5
    # each coordinate has the variance epsilon^2 / 5
    assert (delta.mean(dim=0).abs() < 5 * (0.4**2 / 5 / n) ** 0.5).all()


def test_a_step_has_its_length_however_small_the_gradient():
    gradient = torch.randn(3, 1, 2, 2, generator=generator())
    directions = [steepest(gradient * scale, "l2") for scale in (1.0, 1e-30, 1e-36)]
    for direction in directions:
        torch.testing.assert_close(direction.flatten(1).norm(dim=1), torch.ones(3))
        torch.testing.assert_close(direction, directions[0], rtol=1e-4, atol=1e-6)
    assert not steepest(torch.zeros(2, 3), "l2").any()


def test_autoattack_finds_admissible_examples_and_not_fewer_than_pgd():
    x = torch.rand(30, 1, 6, 2, generator=generator(7))
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 4))
    stream = generator()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.7, generator=stream)
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
    x = torch.rand(2, 1, *shape, generator=generator())
    y = model(x).argmax(dim=1)
    square = SquareAttack(model, norm="L2", eps=0.1, n_queries=2, seed=0, device="cpu")
    spec = AutoAttackSpec(version="reduced", attacks=["square"], queries=2)
    try:
        square.perturb(x, y)
    except (ZeroDivisionError, RuntimeError):
        words = f"Square in the L2 norm fails on images of {shape[0]}x{shape[1]}"
        with pytest.raises(ConfigError, match=words):
            run_autoattack(model, x, y, 0.1, spec, norm="l2")
    else:
        assert run_autoattack(model, x, y, 0.1, spec, norm="l2").x_adv.shape == x.shape
