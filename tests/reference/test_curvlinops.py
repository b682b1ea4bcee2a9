"""Measures of curvature against those made of curvlinops' operators, in float64, on both losses."""

import copy

import curvlinops
import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh
from torch import nn

from robust_flatness import sharpness
from robust_flatness.architectures import build_model
from robust_flatness.attacks import PGD
from robust_flatness.config import ModelSpec
from robust_flatness.flatness import hessian_eigenvalues
from robust_flatness.measures.objective import Objective

CLASSES, BATCH = 4, 5
ATTACK = PGD(0.1, 0.05, 4, restarts=2)


def resnet():
    stream = torch.Generator().manual_seed(0)
    model = build_model(ModelSpec(name="small-resnet", width=2), CLASSES, [0.3], [0.4], stream).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2, generator=stream)
            module.running_mean.normal_(generator=stream)
    return model.eval()


def plain():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(27, 6), nn.Tanh(),
        nn.Linear(6, CLASSES),
    ).double()  # fmt: skip


@pytest.fixture(params=[resnet, plain], ids=lambda make: make.__name__)
def model(request):
    return request.param()


@pytest.fixture(scope="module")
def data():
    stream = torch.Generator().manual_seed(1)
    x = torch.rand(12, 1, 8, 8, dtype=torch.float64, generator=stream)
    return x, torch.randint(CLASSES, (12,), generator=stream)


@pytest.fixture(params=["ce", ATTACK], ids=["clean", "robust"])
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


def weights(model, names):
    return torch.cat([p.detach().flatten() for name, p in model.named_parameters() if name in names]).numpy()


def test_both_ends_of_the_clean_spectrum(model, data):
    names = {name for name, p in model.named_parameters() if p.ndim > 1}
    scipys = operator("HessianLinearOperator", model, *data, names).to_scipy()
    low, high = eigsh(scipys, k=2, which="BE", tol=1e-10, return_eigenvectors=False)
    found = hessian_eigenvalues(model, *data, tolerance=1e-8, batch_size=BATCH)
    assert (found.smallest, found.largest) == pytest.approx((low, high), rel=1e-6)


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


def test_density_of_the_spectrum(data, loss):
    """On the grid and with the Gaussians of the library, over random vectors of each."""
    model = plain()
    x, names = inputs(model, *data, loss)
    linear = operator("HessianLinearOperator", model, x, data[1], names)
    values = np.linalg.eigvalsh(matrix(linear))
    steps, vectors, kappa, margin = 20, 12, 3.0, 0.05
    torch.manual_seed(0)
    grid, theirs = curvlinops.lanczos_approximate_spectrum(
        linear, steps, 100, vectors, kappa, (values[0], values[-1]), margin
    )
    found = sharpness.spectral_density(
        model, *data, loss=loss, batch_size=BATCH, steps=steps, vectors=vectors
    )
    padded = (0.5 + margin) * np.ptp(values)
    width = padded * 2 / (steps - 1) / np.sqrt(8 * np.log(kappa))
    sigma = width / np.ptp(found.nodes)
    singles = zip(found.nodes[:, None], found.weights[:, None], strict=True)
    curves = np.array([type(found)(*one).at(grid.numpy(), width / np.ptp(one[0])) for one in singles])
    error = np.sqrt(2 / vectors) * curves.std(0, ddof=1)
    assert found.at(grid.numpy(), sigma) == pytest.approx(curves.mean(0))
    assert (np.abs(curves.mean(0) - theirs.numpy()) < 5 * error + 1e-3 * theirs.max().item()).all()


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
    w = weights(model, names)
    options = {"loss": loss, "batch_size": BATCH}
    assert sharpness.fisher_trace(model, *data, **options).value == pytest.approx(fisher.trace(), rel=1e-8)
    assert sharpness.fisher_rao(model, *data, **options).value == pytest.approx(w @ fisher @ w, rel=1e-8)
