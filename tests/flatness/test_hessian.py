import warnings

import numpy as np
import pytest
import torch
from torch import nn

from robust_flatness.errors import ConfigError, MeasurementWarning
from robust_flatness.flatness import hessian_eigenvalues, scale_convolutions, spectrum


def network(*, activation=nn.Tanh):
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3, eps=0), activation(),
        nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3, eps=0), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ).double()  # fmt: skip
    for index in (1, 4):
        layers[index].running_var.uniform_(0.5, 2)
        layers[index].running_mean.normal_()
        nn.init.normal_(layers[index].weight)
    return layers.eval()


@pytest.fixture(autouse=True, params=["whole", "Lanczos"])
def method(request, monkeypatch):
    """The matrix of a small network as a whole, and as if it were a large one."""
    if request.param == "Lanczos":
        monkeypatch.setattr(spectrum, "DENSE", 0)
    return request.param


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


def test_equals_the_dense_matrix(data):
    model = network()
    matrix, parameters = dense(model, *data)
    values, vectors = torch.linalg.eigh(matrix)
    found = hessian_eigenvalues(model, *data, tolerance=1e-10, batch_size=4)
    assert found.largest == pytest.approx(values[-1].item(), rel=1e-8)
    assert found.smallest == pytest.approx(values[0].item(), rel=1e-8)
    expected = [values[0], values[1], values[-2], values[-1]]
    np.testing.assert_allclose(found.eigenvalues, expected, rtol=1e-8)
    assert found.convexity == pytest.approx((abs(values[0]) / abs(values[-1])).item())
    vector = torch.cat([found.vector[name].flatten() for name in parameters])
    assert abs(vector @ vectors[:, -1]) == pytest.approx(1, abs=1e-6)
    assert {name: v.shape for name, v in found.vector.items()} == {n: p.shape for n, p in parameters.items()}


def test_coarse_tolerance_is_kept(data):
    model = network()
    values = torch.linalg.eigvalsh(dense(model, *data)[0])
    found = hessian_eigenvalues(model, *data, tolerance=0.01)
    assert found.largest == pytest.approx(values[-1].item(), rel=0.01)
    assert found.smallest == pytest.approx(values[0].item(), rel=0.01)


def test_evaluation_mode_and_seed(data, method):
    model = network().train()
    first, second = (hessian_eigenvalues(model, *data, seed=3) for _ in range(2))
    assert np.array_equal(first.eigenvalues, second.eigenvalues)
    assert np.array_equal(first.eigenvalues, hessian_eigenvalues(model.eval(), *data, seed=3).eigenvalues)
    other = hessian_eigenvalues(model, *data, seed=4)
    assert np.array_equal(first.eigenvalues, other.eigenvalues) is (method == "whole")


@pytest.mark.parametrize("s", [0.5, 2.0])
def test_depends_on_the_scale_of_the_convolutions(data, s):
    """All weights are convolutions': eigenvalues change by exactly 1 / s^2."""
    model = network()
    before = hessian_eigenvalues(model, *data, tolerance=1e-8)
    after = hessian_eigenvalues(scale_convolutions(model, s), *data, tolerance=1e-8)
    assert after.largest == pytest.approx(before.largest / s**2, rel=1e-6)
    assert after.smallest == pytest.approx(before.smallest / s**2, rel=1e-6)
    assert after.convexity == pytest.approx(before.convexity, rel=1e-6)


@pytest.mark.parametrize(("field", "value"), [("k", 1), ("k", 1000), ("tolerance", 0)])
def test_arguments_out_of_range_are_named(data, field, value):
    with pytest.raises(ValueError, match=f"{field}: {value} given"):
        hessian_eigenvalues(network(), *data, **{field: value})


class Matrix:
    """A product with a matrix that counts how often it is asked for."""

    dtype = np.float32

    def __init__(self, matrix):
        self.matrix, self.size, self.asked = np.asarray(matrix, self.dtype), len(matrix), 0

    def __call__(self, vector):
        self.asked += 1
        return self.matrix @ vector.astype(self.dtype)


SIZE = 300
RANDOM = np.random.default_rng(0).standard_normal((SIZE, SIZE))
START = np.random.default_rng(1).standard_normal(SIZE)


def test_a_matrix_that_is_not_symmetric_is_told_by_the_first_two_products():
    found = Matrix(RANDOM @ RANDOM.T + 20 * RANDOM)
    with pytest.raises(ConfigError, match="not symmetric"):
        spectrum.extremes(found, 4, 0.01, START)
    assert found.asked == 2


def test_a_matrix_that_is_nearly_symmetric_is_warned_of():
    found = Matrix(RANDOM @ RANDOM.T + 8 * RANDOM)
    with pytest.warns(MeasurementWarning, match=r"by [2-9] % \(rounding, or a layer's own backward\)"):
        spectrum.extremes(found, 4, 0.1, START)


def test_a_loss_that_is_rounded_away_has_a_hessian_all_the_same(data):
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


@pytest.mark.parametrize("factor", [0, 3])
def test_multiples_of_the_identity_have_one_eigenvalue(factor):
    found = Matrix(factor * np.eye(SIZE))
    values, vectors, converged = spectrum.extremes(found, 4, 0.01, START)
    np.testing.assert_allclose(values, factor, rtol=1e-5)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(4), atol=1e-5)
    assert converged
