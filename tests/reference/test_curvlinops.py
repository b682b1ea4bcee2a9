"""Measures of curvature against those made of curvlinops' operators, in float64, on both losses."""

import copy

import curvlinops
import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh
from torch import nn

from robust_flatness import sharpness
from robust_flatness.attacks import PGD
from robust_flatness.flatness import hessian_eigenvalues
from robust_flatness.measures import spectrum
from robust_flatness.measures.objective import Objective

BATCH = 5


@pytest.fixture(params=["ce", PGD(0.1, 0.05, 4, restarts=2)], ids=["clean", "robust"])
def loss(request):
    return request.param


def operator(kind, model, x, y, names):
    """The library's operator of the mean loss by the parameters of these names, in unequal batches."""
    net = copy.deepcopy(model).eval()
    parameters = [p for name, p in net.named_parameters() if name in names]
    parts = list(zip(x.split(BATCH), y.split(BATCH), strict=True))
    return getattr(curvlinops, kind)(net, nn.CrossEntropyLoss(), parameters, parts)


def inputs(model, x, y, loss):
    """Where the measures take curvature: the images, or the attack's, and the names of the weights."""
    objective = Objective(model, x, y, loss, BATCH)
    return objective.inputs, objective.names


def matrix(linear):
    return (linear @ torch.eye(linear.shape[1], dtype=torch.float64)).numpy()


@pytest.mark.parametrize("kept", [spectrum.KEPT_BYTES, 0], ids=["kept graphs", "graphs anew"])
def test_both_ends_of_the_clean_spectrum(model, data, kept, monkeypatch):
    monkeypatch.setattr(spectrum, "KEPT_BYTES", kept)
    shapes = {name: p.shape for name, p in model.named_parameters() if p.ndim > 1}
    scipys = operator("HessianLinearOperator", model, *data, shapes).to_scipy()
    values, vectors = eigsh(scipys, k=4, which="BE", tol=1e-10)
    found = hessian_eigenvalues(model, *data, tolerance=1e-8, batch_size=BATCH)
    assert found.eigenvalues == pytest.approx(values, rel=1e-6)
    assert (found.smallest, found.largest) == (found.eigenvalues[0], found.eigenvalues[-1])
    assert found.convexity == pytest.approx(abs(values[0]) / abs(values[-1]))
    assert {name: v.shape for name, v in found.vector.items()} == shapes
    vector = torch.cat([v.flatten() for v in found.vector.values()]).numpy()
    assert abs(vector @ vectors[:, -1]) == pytest.approx(1, abs=1e-6)


def test_largest_eigenvalue(model, data, loss):
    x, names = inputs(model, *data, loss)
    scipys = operator("HessianLinearOperator", model, x, data[1], names).to_scipy()
    (expected,) = eigsh(scipys, k=1, which="LA", tol=1e-10, return_eigenvectors=False)
    found = sharpness.hessian_eigenvalue(model, *data, loss=loss, batch_size=BATCH, tolerance=1e-8)
    assert found.value == pytest.approx(expected, rel=1e-6)


def test_trace(model, data, loss):
    x, names = inputs(model, *data, loss)
    hessian = matrix(operator("HessianLinearOperator", model, x, data[1], names))
    found = sharpness.hessian_trace(model, *data, loss=loss, batch_size=BATCH, samples=200)
    # the variance of Hutchinson's estimator is twice the squared sum off the diagonal
    off = np.square(hessian).sum() - np.square(hessian.diagonal()).sum()
    assert found.standard_error == pytest.approx((2 * off / 200) ** 0.5, rel=0.3)
    assert abs(found.value - hessian.trace()) < 4 * found.standard_error


def test_traces_and_eigenvalues_of_layers(model, data, loss):
    x, names = inputs(model, *data, loss)
    found = sharpness.layer_curvature(model, *data, loss=loss, batch_size=BATCH, samples=40, steps=60)
    assert [*found] == names
    for name, layer in found.items():
        hessian = matrix(operator("HessianLinearOperator", model, x, data[1], {name}))
        off = np.square(hessian).sum() - np.square(hessian.diagonal()).sum()
        assert abs(layer.samples.mean() - hessian.trace()) < 4 * (2 * off / 40) ** 0.5 + 1e-12
        assert layer.eigenvalue == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=1e-6)


@pytest.mark.parametrize("model", ["plain"], indirect=True)
def test_density_of_the_spectrum(model, data, loss):
    """v' A v has the expectation Tr A and, for random signs v, the variance 2 sum_{i != j} A_ij^2; A is the
    function of the Hessian whose eigenvalues are those of the Gaussian kernel."""
    x, names = inputs(model, *data, loss)
    values, vectors = np.linalg.eigh(matrix(operator("HessianLinearOperator", model, x, data[1], names)))
    found = sharpness.spectral_density(model, *data, loss=loss, batch_size=BATCH, steps=30, vectors=12)
    assert (found.nodes.min(), found.nodes.max()) == pytest.approx((values[0], values[-1]), rel=1e-3)
    grid, width = found.grid(0.02), found.width(0.02)
    kernel = np.exp(-(((values[:, None] - grid) / width) ** 2) / 2) / (width * np.sqrt(2 * np.pi))
    off_diagonal = np.square(kernel).sum(0) - np.square(np.square(vectors) @ kernel).sum(0)
    error, exact = np.sqrt(2 * off_diagonal / 12) / len(values), kernel.mean(0)
    assert (np.abs(found.at(grid, 0.02) - exact) < 5 * error + 1e-3 * exact.max()).all()


def test_relative_flatness_of_the_last_layer(model, data, loss):
    x, _ = inputs(model, *data, loss)
    name, weight = [(n, p.detach().numpy()) for n, p in model.named_parameters() if p.ndim == 2][-1]
    hessian = matrix(operator("HessianLinearOperator", model, x, data[1], {name}))
    blocks = hessian.reshape(weight.shape * 2)
    expected = np.einsum("sd,td,sete->", weight, weight, blocks)
    found = sharpness.relative_flatness(model, *data, loss=loss, batch_size=BATCH)
    assert found.value == pytest.approx(expected, rel=1e-8)


def test_fisher_trace_and_norm(model, data, loss):
    x, names = inputs(model, *data, loss)
    fisher = matrix(operator("EFLinearOperator", model, x, data[1], names))
    w = torch.cat([p.detach().flatten() for name, p in model.named_parameters() if name in names]).numpy()
    options = {"loss": loss, "batch_size": BATCH}
    assert sharpness.fisher_trace(model, *data, **options).value == pytest.approx(fisher.trace(), rel=1e-8)
    assert sharpness.fisher_rao(model, *data, **options).value == pytest.approx(w @ fisher @ w, rel=1e-8)
