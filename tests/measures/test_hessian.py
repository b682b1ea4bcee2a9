"""Extreme eigenvalues of the Hessian of the clean loss."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from robust_flatness.errors import ConfigError, MeasurementWarning
from robust_flatness.flatness import hessian_eigenvalues, scale_convolutions
from robust_flatness.measures.spectrum import extreme_eigenvalues


@pytest.fixture
def network():
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3, eps=0), nn.Tanh(),
        nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3, eps=0), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ).double()  # fmt: skip
    for index in (1, 4):
        layers[index].running_var.uniform_(0.5, 2)
        layers[index].running_mean.normal_()
        nn.init.normal_(layers[index].weight)
    return layers.eval()


@pytest.fixture
def data():
    g = torch.Generator().manual_seed(0)
    return torch.rand(11, 1, 5, 5, dtype=torch.float64, generator=g), torch.randint(0, 3, (11,), generator=g)


def dense(model, x, y):
    """The whole matrix by autograd, for the parameters with more than one dimension."""
    parameters = {name: p for name, p in model.named_parameters() if p.ndim > 1}
    sizes = [p.numel() for p in parameters.values()]

    def loss(flat):
        parts = zip(parameters, flat.split(sizes), strict=True)
        weights = {name: part.view(parameters[name].shape) for name, part in parts}
        return nn.functional.cross_entropy(torch.func.functional_call(model, weights, x), y)

    flat = torch.cat([p.detach().flatten() for p in parameters.values()])
    return torch.autograd.functional.hessian(loss, flat), parameters


@pytest.mark.parametrize("kept", [True, False], ids=["kept graphs", "graphs anew"])
def test_equals_the_dense_matrix(network, data, kept, monkeypatch):
    if not kept:
        monkeypatch.setattr("robust_flatness.measures.spectrum.KEPT_BYTES", 0)
    matrix, parameters = dense(network, *data)
    values, vectors = torch.linalg.eigh(matrix)
    found = hessian_eigenvalues(network, *data, tolerance=1e-10, batch_size=4)
    expected = [values[0], values[1], values[-2], values[-1]]
    np.testing.assert_allclose(found.eigenvalues, expected, rtol=1e-8)
    assert (found.smallest, found.largest) == (found.eigenvalues[0], found.eigenvalues[-1])
    assert found.convexity == pytest.approx((abs(values[0]) / abs(values[-1])).item())
    vector = torch.cat([found.vector[name].flatten() for name in parameters])
    assert abs(vector @ vectors[:, -1]) == pytest.approx(1, abs=1e-6)
    assert {name: v.shape for name, v in found.vector.items()} == {n: p.shape for n, p in parameters.items()}


def test_evaluation_mode_and_seed(network, data):
    first, second = (hessian_eigenvalues(network.train(), *data, seed=3) for _ in range(2))
    assert np.array_equal(first.eigenvalues, second.eigenvalues)
    assert np.array_equal(first.eigenvalues, hessian_eigenvalues(network.eval(), *data, seed=3).eigenvalues)
    assert not np.array_equal(first.eigenvalues, hessian_eigenvalues(network, *data, seed=4).eigenvalues)


@pytest.mark.parametrize("s", [0.5, 2.0])
def test_depends_on_the_scale_of_the_convolutions(network, data, s):
    """All weights are convolutions': eigenvalues change by exactly 1 / s^2."""
    before = hessian_eigenvalues(network, *data, tolerance=1e-8)
    after = hessian_eigenvalues(scale_convolutions(network, s), *data, tolerance=1e-8)
    assert after.largest == pytest.approx(before.largest / s**2, rel=1e-6)
    assert after.smallest == pytest.approx(before.smallest / s**2, rel=1e-6)
    assert after.convexity == pytest.approx(before.convexity, rel=1e-6)


@pytest.mark.parametrize(("field", "value"), [("k", 1), ("k", 1000), ("tolerance", 0)])
def test_arguments_out_of_range_are_named(network, data, field, value):
    with pytest.raises(ValueError, match=f"{field}: {value} given"):
        hessian_eigenvalues(network, *data, **{field: value})


def test_the_smallest_eigenvalue_of_a_convex_loss_is_zero():
    """No relative tolerance is met there; it is known to the tolerance times the largest eigenvalue."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(100, 10))
    x, y = torch.rand(128, 100), torch.randint(10, (128,))
    largest = torch.linalg.eigvalsh(dense(model, x, y)[0])[-1].item()
    with pytest.warns(MeasurementWarning, match="eigenvalues near 0"):
        found = hessian_eigenvalues(model, x, y)
    assert found.largest == pytest.approx(largest, rel=0.01)
    assert abs(found.smallest) <= 0.01 * largest
    assert not found.converged


def test_a_loss_that_is_rounded_away_has_finite_eigenvalues(data):
    """All logits far apart: softmax minus label is rounding."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(25, 20), nn.Tanh(), nn.Linear(20, 3))
    with torch.no_grad():
        model[-1].weight.mul_(1500)
    x = data[0].float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MeasurementWarning)
        found = hessian_eigenvalues(model, x, model(x).argmax(1), k=2)
    assert np.isfinite(found.eigenvalues).all()


class Computed(nn.Module):
    """A network whose features are a function of the inputs."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.function, self.linear = function, nn.Linear(25, 3)

    def forward(self, x):
        return self.function(self.linear, x.flatten(1))


def detached(linear, x):
    with torch.no_grad():
        return linear(x)


def transformed(linear, x):
    return linear(x + torch.func.grad(lambda t: t.square().sum())(x))


def test_weights_without_a_gradient_have_no_hessian(data):
    with pytest.raises(ConfigError, match=r"gradient|differentiably"):
        hessian_eigenvalues(Computed(detached), data[0].float(), data[1], k=2)


def test_a_network_that_calls_torch_func_has_a_hessian(data):
    x, y = data[0].float(), data[1]
    found = hessian_eigenvalues(Computed(transformed), x, y, k=2).largest
    expected = hessian_eigenvalues(Computed(lambda linear, x: linear(3 * x)), x, y, k=2).largest
    assert found == pytest.approx(expected, rel=1e-4)


SIZE = 300
START = np.random.default_rng(1).standard_normal(SIZE)


def test_products_that_are_not_symmetric_are_warned_of():
    from scipy.sparse.linalg import aslinearoperator

    random = np.random.default_rng(0).standard_normal((SIZE, SIZE))
    with pytest.warns(MeasurementWarning, match=r"asymmetric by [0-9]+ %"):
        extreme_eigenvalues(aslinearoperator(random @ random.T + 8 * random), 4, 0.1, START)


@pytest.mark.parametrize("factor", [0, 3])
def test_multiples_of_the_identity_have_one_eigenvalue(factor):
    from scipy.sparse.linalg import aslinearoperator

    values, vectors, converged = extreme_eigenvalues(aslinearoperator(factor * np.eye(SIZE)), 4, 0.01, START)
    np.testing.assert_allclose(values, factor, rtol=1e-5)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(4), atol=1e-5)
    assert converged
