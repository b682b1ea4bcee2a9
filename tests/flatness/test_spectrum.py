"""Spectra that end at zero, and second derivatives that are wrong or missing."""

import pytest
import torch
from torch import nn

from robust_flatness.errors import ConfigError, MeasurementWarning
from robust_flatness.flatness import hessian_eigenvalues, spectrum


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 4))


@pytest.fixture
def data():
    g = torch.Generator().manual_seed(0)
    return torch.rand(9, 1, 4, 4, generator=g), torch.randint(4, (9,), generator=g)


def test_a_spectrum_that_ends_at_zero(monkeypatch):
    """A linear model's Hessian is positive semi-definite: no relative tolerance is met at 0."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(200, 400, generator=g), torch.randint(4, (200,), generator=g)
    torch.manual_seed(0)
    model = nn.Linear(400, 4)
    monkeypatch.setattr(spectrum, "RESTARTS", 5)
    with pytest.warns(MeasurementWarning, match="eigenvalues near 0"):
        found = hessian_eigenvalues(model, x, y, k=2)
    assert not found.converged
    p = model(x).softmax(1).detach()
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    matrix = torch.einsum("nij,nk,nl->ikjl", curvature, x, x).reshape(1600, 1600) / 200
    assert found.largest == pytest.approx(torch.linalg.eigvalsh(matrix)[-1].item(), rel=0.01)
    assert abs(found.smallest) <= 0.01 * found.largest


def test_a_wrong_second_derivative_is_noticed(data):
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.tanh()

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            return gradient * (1 - x.detach().tanh().square()) * (1 + (x - x.detach()).roll(1, 1))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), _Applied(Wrong), nn.Linear(6, 4))
    with pytest.raises(ConfigError, match="not symmetric"):
        hessian_eigenvalues(model, *data, k=2)


class _Applied(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function.apply(x)


def test_weights_that_no_gradient_comes_to_have_no_hessian(data):
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = linear()

        def forward(self, x):
            with torch.no_grad():
                return self.net(x)

    with pytest.raises(ConfigError, match="no gradient comes to its weights"):
        hessian_eigenvalues(Detached(), *data, k=2)


def test_a_network_that_calls_torch_func_has_a_hessian(data):
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = linear()

        def forward(self, x):
            slope = torch.func.grad(lambda t: t.square().sum())(x)
            return self.net(x + slope)

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = linear()

        def forward(self, x):
            return self.net(3 * x)

    found, expected = (hessian_eigenvalues(model, *data, k=2).largest for model in (Inner(), Outer()))
    assert found == pytest.approx(expected, rel=1e-4)
