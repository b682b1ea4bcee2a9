"""Curvature by layer, the weight-curvature index and the density of the spectrum, against dense matrices."""

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import aslinearoperator
from torch import nn
from torch.func import functional_call, hessian
from torch.nn import functional as F

from robust_flatness import sharpness
from robust_flatness.attacks import PGD
from robust_flatness.data import Dataset
from robust_flatness.measures.base import Examples
from robust_flatness.measures.curvature import INDEX, CurvatureSettings, curvature
from robust_flatness.measures.density import DensitySettings, density
from robust_flatness.measures.sharpness.block import SharpnessSettings
from robust_flatness.measures.sharpness.block import sharpness as block
from robust_flatness.measures.sharpness.curvature import index_of
from robust_flatness.measures.spectrum import lanczos
from robust_flatness.network import Network

ATTACK = PGD(0.1, 0.05, 4, restarts=2)
SIGMA = 0.02


@pytest.fixture
def model():
    stream = torch.Generator().manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3, bias=False)).double()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=stream, dtype=p.dtype))
    return net


@pytest.fixture(params=["ce", ATTACK], ids=["clean", "robust"])
def loss(request):
    return request.param


@pytest.fixture
def data():
    stream = torch.Generator().manual_seed(0)
    x = torch.rand(24, 4, generator=stream, dtype=torch.float64)
    return x, torch.randint(3, (24,), generator=stream)


def blocks(model, x, y, loss):
    """The dense diagonal block of each layer, at the inputs of the loss."""
    x = sharpness.Objective(model, x, y, loss).inputs
    weights = {name: p.detach() for name, p in model.named_parameters()}
    every = hessian(lambda w: F.cross_entropy(functional_call(model, w, (x,)), y))(weights)
    return {name: every[name][name].reshape(w.numel(), w.numel()) for name, w in weights.items()}


def dense(model, x, y, loss):
    """The whole dense matrix, at the inputs of the loss."""
    x = sharpness.Objective(model, x, y, loss).inputs
    weights = {name: p.detach() for name, p in model.named_parameters()}
    every = hessian(lambda w: F.cross_entropy(functional_call(model, w, (x,)), y))(weights)
    rows = [
        torch.cat([every[a][b].reshape(weights[a].numel(), weights[b].numel()) for b in weights], dim=1)
        for a in weights
    ]
    return torch.cat(rows)


def test_trace_and_eigenvalue_of_each_layer(model, data, loss):
    found = sharpness.layer_curvature(model, *data, loss=loss, batch_size=12, samples=196)
    expected = blocks(model, *data, loss)
    assert found.keys() == expected.keys()
    for name, matrix in expected.items():
        samples, off = found[name].samples, matrix.square().sum() - matrix.diagonal().square().sum()
        error = (2 * off / 196).sqrt()  # the variance of Hutchinson's estimator
        assert abs(samples.mean() - matrix.trace()) < 4 * error
        assert samples.std() / 14 == pytest.approx(error.item(), rel=0.3)
        assert found[name].eigenvalue == pytest.approx(torch.linalg.eigvalsh(matrix)[-1].item(), rel=1e-8)


def test_the_index_is_made_of_norms_and_traces_of_matrices(model, data, loss):
    """The tensor of one dimension, a bias, is left out."""
    matrices, weights = blocks(model, *data, loss), dict(model.named_parameters())
    expected = sum(
        weights[name].norm().item() * matrix.trace().clamp(min=0).sqrt().item()
        for name, matrix in matrices.items()
        if weights[name].ndim > 1
    )
    found = [
        sharpness.weight_curvature_index(model, *data, loss=loss, samples=100, seed=seed) for seed in range(6)
    ]
    values, errors = np.array([(index.value, index.standard_error) for index in found]).T
    if loss == "ce":  # adversarial starts depend on the seed
        assert abs(values.mean() - expected) < 4 * errors.mean() / 6**0.5
        assert values.std(ddof=1) == pytest.approx(errors.mean(), rel=0.7)
    assert abs(values[0] - expected) < 4 * errors[0]


def test_a_negative_trace_counts_as_none():
    weight = torch.full((2, 2), 1.5)
    samples = {"a": [3.0, 5.0], "b": [-1.0, -3.0], "bias": [1.0, 1.0]}
    layers = {
        name: sharpness.LayerCurvature(
            torch.tensor(values).double(), None, weight if name != "bias" else weight[0]
        )
        for name, values in samples.items()
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


def gaussians(values, at, width):
    away = (at[:, None] - values) / width
    return np.exp(-(away**2) / 2) / (width * np.sqrt(2 * np.pi))


def test_the_density_is_that_of_the_dense_matrix(model, data, loss):
    matrix = dense(model, *data, loss).numpy()
    values = np.linalg.eigvalsh(matrix)
    found = sharpness.spectral_density(model, *data, loss=loss, batch_size=12, vectors=36)
    assert (found.nodes.min(), found.nodes.max()) == pytest.approx((values[0], values[-1]))
    grid, width = found.grid(SIGMA), found.width(SIGMA)
    assert width == pytest.approx(SIGMA * np.ptp(values))
    assert np.trapezoid(found.at(grid, SIGMA), grid) == pytest.approx(1, abs=1e-4)
    pairs = zip(found.nodes, found.weights, strict=True)
    curves = np.array([gaussians(nodes, grid, width) @ weights for nodes, weights in pairs])
    np.testing.assert_allclose(found.at(grid, SIGMA), curves.mean(0))
    error = curves.std(0, ddof=1) / 6
    exact = gaussians(values, grid, width).mean(1)
    assert (np.abs(curves.mean(0) - exact) < 5 * error + 1e-12).all()


def test_moments_with_few_steps_are_those_of_the_vectors(model, data):
    """The first moment is Hutchinson's estimate of the trace from as many vectors."""
    trace = dense(model, *data, "ce").trace().item()
    found = sharpness.spectral_density(model, *data, steps=2, vectors=100)
    first = len(dense(model, *data, "ce")) * (found.nodes * found.weights).sum(1)
    assert abs(first.mean() - trace) < 4 * first.std() / 10


def test_vectors_are_signs_so_that_a_diagonal_hessian_has_no_error():
    """All logits but one are constant: the Hessian in the scale of that one is a single number."""

    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor([0.7], dtype=torch.float64))

        def forward(self, x):
            return torch.stack([self.scale * x[:, 0], 0 * x[:, 0]], dim=1)

    x, y = torch.rand(6, 1, dtype=torch.float64), torch.tensor([0, 1] * 3)
    p = torch.sigmoid(0.7 * x[:, 0])
    expected = (x[:, 0] ** 2 * p * (1 - p)).mean().item()
    layer = sharpness.layer_curvature(Scale(), x, y, samples=2)["scale"]
    assert [*layer.samples, layer.eigenvalue] == pytest.approx([expected] * 3)
    found = sharpness.spectral_density(Scale(), x, y)
    assert found.nodes == pytest.approx(expected)
    assert found.weights == pytest.approx(1)


@pytest.fixture
def examples():
    rng = np.random.default_rng(0)
    images = {f"x_{s}": rng.integers(0, 256, (16, 1, 2, 2), dtype=np.uint8) for s in ("train", "test")}
    return Examples(Dataset(images | {f"y_{s}": rng.integers(0, 3, 16) for s in ("train", "test")}))


@pytest.fixture
def net(model):
    return Network(nn.Sequential(nn.Flatten(), *model.float()))


GIVEN = {"attack": {"epsilon": 0.1, "step_size": 0.05, "steps": 2}, "train_examples": 16}


def test_records_of_curvature_are_by_layer_and_loss(net, examples):
    settings = CurvatureSettings(**GIVEN, test_examples=8, vectors=3, steps=4)
    records = list(curvature(net, examples, settings))
    layers, losses, splits = [*net.weights()], ("ce", "rloss"), ("train", "test")
    for metric in ("trace", "eigenvalue"):
        where = {(r.coordinate, r.loss, r.split, r.n) for r in records if r.metric == metric}
        counts = {"train": 16, "test": 8}
        assert where == {(name, loss, s, counts[s]) for name in layers for loss in losses for s in splits}
    assert {(r.loss, r.split, r.coordinate) for r in records if r.metric == INDEX} == {
        (loss, "train", "") for loss in losses
    }
    norms = {r.coordinate: r.value for r in records if r.metric == "norm"}
    assert norms == pytest.approx({name: w.norm().item() for name, w in net.weights().items()})
    of_robust = {(r.metric, r.coordinate): r for r in records if (r.loss, r.split) == ("rloss", "train")}
    index = sum(
        norms[name] * max(of_robust["trace", name].value, 0) ** 0.5
        for name, weight in net.weights().items()
        if weight.ndim > 1
    )
    assert of_robust[INDEX, ""].value == pytest.approx(index)
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
