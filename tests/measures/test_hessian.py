"""Extreme eigenvalues of the Hessian of the clean loss."""

import numpy as np
import pytest
import torch
from torch import nn

from robust_flatness.errors import MeasurementWarning
from robust_flatness.flatness import hessian_eigenvalues, scale_convolutions


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


def test_depends_on_the_scale_of_the_convolutions(network, data):
    """All weights are convolutions': eigenvalues change by exactly 1 / s^2."""
    s = 2.0
    before = hessian_eigenvalues(network, *data, tolerance=1e-8)
    after = hessian_eigenvalues(scale_convolutions(network, s), *data, tolerance=1e-8)
    assert after.largest == pytest.approx(before.largest / s**2, rel=1e-6)
    assert after.smallest == pytest.approx(before.smallest / s**2, rel=1e-6)
    assert after.convexity == pytest.approx(before.convexity, rel=1e-6)


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
