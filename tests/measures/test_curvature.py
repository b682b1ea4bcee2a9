"""Extreme eigenvalues, curvature by layer, index and density; values are compared in tests/reference."""

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import aslinearoperator
from torch import nn
from torch.nn import functional as F

from robust_flatness import sharpness
from robust_flatness.attacks import PGD
from robust_flatness.data import Dataset
from robust_flatness.errors import MeasurementWarning
from robust_flatness.flatness import hessian_eigenvalues
from robust_flatness.measures.base import Examples
from robust_flatness.measures.curvature import INDEX, CurvatureSettings, curvature
from robust_flatness.measures.density import DensitySettings, density
from robust_flatness.measures.sharpness.block import SharpnessSettings
from robust_flatness.measures.sharpness.block import sharpness as block
from robust_flatness.measures.sharpness.curvature import index_of
from robust_flatness.measures.spectrum import lanczos
from robust_flatness.network import Network


def test_the_smallest_eigenvalue_of_a_convex_loss_is_zero():
    """No relative tolerance is met there; it is known to the tolerance times the largest eigenvalue."""
    torch.manual_seed(0)
    model, x, y = nn.Linear(100, 10, bias=False), torch.rand(128, 100), torch.randint(10, (128,))
    matrix = torch.func.hessian(lambda w: F.cross_entropy(x @ w.T, y))(model.weight.detach())
    largest = torch.linalg.eigvalsh(matrix.reshape(1000, 1000))[-1].item()
    with pytest.warns(MeasurementWarning, match="eigenvalues near 0"):
        found = hessian_eigenvalues(model, x, y)
    assert found.largest == pytest.approx(largest, rel=0.01)
    assert abs(found.smallest) <= 0.01 * largest


def test_a_negative_trace_counts_as_none_and_biases_are_left_out_of_the_index():
    weight = torch.full((2, 2), 1.5)
    samples = {"a": ([3.0, 5.0], weight), "b": ([-1.0, -3.0], weight), "bias": ([1.0, 1.0], weight[0])}
    layers = {
        name: sharpness.LayerCurvature(torch.tensor(values).double(), None, tensor)
        for name, (values, tensor) in samples.items()
    }
    index = index_of(layers)
    assert index.value == pytest.approx(3 * 2)
    assert index.standard_error == pytest.approx(3 * 1 / (2 * 2))  # that of the trace, times the slope


def symmetric(size):
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((size, size))
    return matrix + matrix.T, rng.standard_normal(size)


@pytest.mark.parametrize("steps", [1, 3, 12, 40])
def test_quadrature_is_exact_for_polynomials(steps):
    """Of degree 2 m - 1 for m steps; with as many steps as dimensions for all, and no more are made."""
    matrix, start = symmetric(12)
    nodes, weights = lanczos(aslinearoperator(matrix), start, steps)
    m = min(steps, 12)
    assert len(nodes) == m
    values, vectors = np.linalg.eigh(matrix)
    seen = (vectors.T @ start) ** 2 / (start @ start)
    for power in range(2 * m):
        scale = np.abs(values).max() ** power
        assert weights @ nodes**power == pytest.approx(seen @ values**power, abs=1e-10 * scale)
    if m == 12:
        np.testing.assert_allclose(nodes, values)
        np.testing.assert_allclose(weights, seen, atol=1e-10)


def test_an_invariant_space_ends_the_steps():
    matrix, start = symmetric(6)
    values, vectors = np.linalg.eigh(matrix)
    nodes, weights = lanczos(aslinearoperator(matrix), vectors[:, 1] + vectors[:, 4], 5)
    np.testing.assert_allclose(nodes, values[[1, 4]])
    np.testing.assert_allclose(weights, [0.5, 0.5])
    nodes, weights = lanczos(aslinearoperator(0 * matrix), start, 5)
    assert (nodes.tolist(), weights.tolist()) == ([0], [1])


def test_vectors_are_signs_so_that_a_diagonal_hessian_has_no_error():
    """One weight in float64: the Hessian is a single number."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ConstantPad1d((0, 1), 0.0)).double()
    x, y = torch.rand(6, 1, dtype=torch.float64), torch.tensor([0, 1] * 3)
    p = torch.sigmoid(model[0].weight.item() * x[:, 0])
    expected = (x[:, 0] ** 2 * p * (1 - p)).mean().item()
    layer = sharpness.layer_curvature(model, x, y, samples=2)["0.weight"]
    assert [*layer.samples, layer.eigenvalue] == pytest.approx([expected] * 3)
    found = sharpness.spectral_density(model, x, y)
    assert found.nodes == pytest.approx(expected)
    assert found.weights == pytest.approx(1)


@pytest.fixture
def examples():
    rng = np.random.default_rng(0)
    images = {f"x_{s}": rng.integers(0, 256, (16, 1, 2, 2), dtype=np.uint8) for s in ("train", "test")}
    return Examples(Dataset(images | {f"y_{s}": rng.integers(0, 3, 16) for s in ("train", "test")}))


@pytest.fixture
def net():
    torch.manual_seed(1)
    return Network(nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3, bias=False)))


GIVEN = {"attack": {"epsilon": 0.1, "step_size": 0.05, "steps": 2}, "train_examples": 16}


def test_records_of_curvature_are_by_layer_and_loss(net, examples):
    settings = CurvatureSettings(**GIVEN, test_examples=8, vectors=3, steps=4)
    records = list(curvature(net, examples, settings))
    layers, losses, splits = [*net.weights()], ("ce", "rloss"), ("train", "test")
    for metric in ("trace", "eigenvalue"):
        where = {(r.coordinate, r.loss, r.split, r.n) for r in records if r.metric == metric}
        counts = {"train": 16, "test": 8}
        assert where == {(name, loss, s, counts[s]) for name in layers for loss in losses for s in splits}
    where = {(r.loss, r.split, r.coordinate) for r in records if r.metric == INDEX}
    assert where == {(loss, "train", "") for loss in losses}
    norms = {r.coordinate: r.value for r in records if r.metric == "norm"}
    assert norms == pytest.approx({name: w.norm().item() for name, w in net.weights().items()})
    fewer = curvature(net, examples, settings.model_copy(update={"steps": 0}))
    assert [*fewer] == [r for r in records if r.metric != "eigenvalue"]


def test_records_of_the_density_integrate_to_one(net, examples):
    records = list(density(net, examples, DensitySettings(**GIVEN, steps=5, vectors=2)))
    for loss in ("ce", "rloss"):
        at, values = np.array([(r.coordinate, r.value) for r in records if r.loss == loss]).T
        assert np.trapezoid(values, at) == pytest.approx(1, abs=1e-3)
        assert 200 < len(at) < 250


def test_adversarial_examples_are_those_of_sharpness(net, examples, monkeypatch):
    """They are found once for a network."""
    given = SharpnessSettings(**GIVEN, measures="hessian_trace", vectors=2)
    list(block(net, examples, given))
    monkeypatch.setattr(PGD, "__call__", lambda *_, **__: pytest.fail("attacked again"))
    assert list(curvature(net, examples, CurvatureSettings(**GIVEN, vectors=2, steps=2)))
    assert list(density(net, examples, DensitySettings(**GIVEN, steps=2, vectors=1)))
