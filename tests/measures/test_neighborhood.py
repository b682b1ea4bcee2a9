import pytest
import torch
from torch import nn

from robust_flatness.architectures import build_model
from robust_flatness.config import ModelSpec
from robust_flatness.flatness import Neighborhood, perturbed_parameters
from robust_flatness.network import Network

XI = 0.3


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def model():
    return build_model(ModelSpec(name="small-resnet", width=4), 5, [0.5], [0.3], generator()).double()


@pytest.fixture
def ball(model):
    return Neighborhood(Network(model), XI)


def norms(tensors):
    return torch.stack([tensor.norm() for tensor in tensors])


def test_all_parameters_but_those_of_normalisations(model):
    names = perturbed_parameters(model)
    assert {"stem.weight", "stem.bias", "classifier.weight", "classifier.bias"} < set(names)
    left = [name for name, _ in model.named_parameters() if name not in names]
    assert left
    assert all("norm" in name or "shortcut.1" in name for name in left)
    layers = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.LayerNorm(2), nn.GroupNorm(1, 2))
    assert perturbed_parameters(layers) == ["0.weight", "0.bias"]


def test_on_the_sphere_every_layer_has_exactly_its_radius(model, ball):
    nu, parameters = ball.on_sphere(generator()), dict(model.named_parameters())
    expected = XI * norms([parameters[name].detach() for name in ball.names])
    torch.testing.assert_close(norms(nu), expected, rtol=1e-12, atol=0)
    for name, tensor in ball.at(nu).items():
        torch.testing.assert_close((tensor - parameters[name]).norm(), XI * parameters[name].norm())


def test_in_the_ball_no_layer_exceeds_its_radius_and_norms_are_uniform(ball):
    radius = XI * ball.weights[0].norm()
    shares = torch.stack([norms(ball.in_ball(generator(seed)))[0] / radius for seed in range(400)])
    assert shares.max() <= 1 + 1e-12
    # mean 1/2, variance 1/12, within five standard errors of 400 draws
    assert abs(shares.mean() - 0.5) < 5 * (1 / 12 / 400) ** 0.5
    assert abs(shares.var() - 1 / 12) < 5 * (1 / 180 / 400) ** 0.5


def test_directions_are_isotropic(ball):
    """A coordinate of a unit vector in dimension d has mean 0 and variance 1/d."""
    index = ball.names.index("classifier.weight")
    size = ball.weights[index].numel()
    first = torch.stack([ball.directions(generator(s))[index].flatten()[0] for s in range(400)])
    assert abs(first.mean()) < 5 * (1 / size / 400) ** 0.5
    assert first.var() * size == pytest.approx(1, abs=5 * (2 / 400) ** 0.5)


def test_zero_tensors_stay_zero(ball):
    zero = [name for name, weight in zip(ball.names, ball.weights, strict=True) if not weight.any()]
    assert "stem.bias" in zero
    nu = ball.in_ball(generator())
    gradients = [torch.randn(w.shape, dtype=w.dtype, generator=generator()) for w in ball.weights]
    for perturbation in (ball.on_sphere(generator()), nu, ball.step(nu, gradients, 0.01)):
        at = ball.at(perturbation)
        assert not any(at[name].any() for name in zero)
        assert all(tensor.isfinite().all() for tensor in at.values())


def test_projection_shrinks_what_is_outside_and_keeps_what_is_inside(ball):
    surface = ball.on_sphere(generator())
    for factor, expected in ((3, 1), (0.9, 0.9), (0, 0)):
        for found, nu in zip(ball.project([factor * nu for nu in surface]), surface, strict=True):
            torch.testing.assert_close(found, expected * nu, rtol=1e-12, atol=0)


def test_a_step_moves_a_layer_by_its_share_of_the_norm(ball):
    zeros = [torch.zeros_like(w) for w in ball.weights]
    gradients = [1e-8 * torch.randn(w.shape, dtype=w.dtype, generator=generator()) for w in ball.weights]
    nu = ball.step(zeros, gradients, 0.01)
    torch.testing.assert_close(norms(nu), 0.01 * norms(ball.weights))
    for moved, gradient, weight in zip(nu, gradients, ball.weights, strict=True):
        torch.testing.assert_close((moved * gradient).sum(), 0.01 * weight.norm() * gradient.norm())
    for _ in range(50):
        ball.step(nu, gradients, 0.01)
    torch.testing.assert_close(norms(nu), XI * norms(ball.weights))
    zeros = [torch.zeros_like(w) for w in ball.weights]
    assert not any(tensor.any() for tensor in ball.step(zeros, zeros, 0.01))


def test_the_weight_bound_holds_for_every_perturbation(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.clamp_(-0.05, 0.05)
    ball = Neighborhood(Network(model), XI, weight_bound=0.05)
    gradients = [torch.randn(w.shape, dtype=w.dtype, generator=generator()) for w in ball.weights]
    nu = ball.in_ball(generator())
    for perturbation in (ball.on_sphere(generator()), nu, ball.step(nu, gradients, 0.2)):
        assert max(tensor.abs().max() for tensor in ball.at(perturbation).values()) <= 0.05 + 1e-15
        assert (norms(perturbation) <= XI * norms(ball.weights) * (1 + 1e-12)).all()
    free = Neighborhood(Network(model), XI)
    assert max(t.abs().max() for t in free.at(free.on_sphere(generator())).values()) > 0.05
