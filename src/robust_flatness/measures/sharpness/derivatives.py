"""Measures at w itself: derivatives of the loss, the margin of the logits, and norms of the weights."""

import copy
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, eigsh
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.utils import get_total_norm

from robust_flatness.attacks.found import margin as negative_margin
from robust_flatness.attacks.pgd import batched_logits, cross_entropy
from robust_flatness.errors import ConfigError, UndefinedError
from robust_flatness.measures.objective import Estimate, Objective, of_objective
from robust_flatness.measures.sharpness.block import DEFAULTS
from robust_flatness.measures.spectrum import Hessian, dot
from robust_flatness.network import Network
from robust_flatness.seeding import derive_seed, generator

#: Number of per-example gradients held in memory at a time.
TOGETHER = 32


@of_objective
def hessian_eigenvalue(objective: Objective, tolerance: float = 0.01, iterations: int = 300) -> Estimate:
    r"""The largest eigenvalue of :math:`\nabla_w^2 L(w)` (Keskar et al., ICLR 2017; Dinh et al., ICML 2017).

    By Lanczos' method to a relative accuracy of `tolerance`; raises `ConfigError` if `iterations` restarts do
    not suffice. As in all measures of this file, the robust loss is taken at adversarial examples found at w
    and kept fixed. Not invariant: scaling a convolution before a batch norm by s divides its block by s
    squared. No standard error.
    """
    hessian = objective.hessian()
    start = np.random.default_rng(derive_seed(objective.seed, "lanczos")).standard_normal(hessian.shape[0])
    options = {"tol": tolerance, "v0": start, "maxiter": iterations, "return_eigenvectors": False}
    try:
        (value,) = eigsh(hessian, k=1, which="LA", **options)
    except ArpackNoConvergence:
        raise ConfigError(f"hessian_eigenvalue: not converged after {iterations} restarts") from None
    return Estimate(float(value))


@of_objective
def hessian_trace(objective: Objective, samples: int = DEFAULTS.vectors) -> Estimate:
    r"""The trace of :math:`\nabla_w^2 L(w)` by Hutchinson's estimator (Keskar et al. 2017, Dinh et al. 2017).

    .. math:: \mathrm{Tr}\,H \approx \tfrac1S \sum_s v_s^\top H v_s,\quad v_s \in \{-1, 1\}^P

    with `samples` Rademacher vectors; the standard error is over them. Otherwise as `hessian_eigenvalue`.
    """
    streams = (generator(objective.seed, "hutchinson", sample) for sample in range(samples))
    return Estimate.mean(quadratic_forms(objective.hessian(), streams))


def quadratic_forms(hessian: Hessian, streams: Iterable[torch.Generator]) -> Tensor:
    r"""Return :math:`v^\top H v` for a Rademacher vector v drawn from each of the streams, [S]."""
    vectors = (rademacher(hessian, stream) for stream in streams)
    return torch.stack([dot(vector, hessian.product(vector)) for vector in vectors])


def rademacher(hessian: Hessian, stream: torch.Generator) -> list[Tensor]:
    """Return a vector of random signs as tensors in the shapes of the layers."""
    draws = (torch.randint(2, leaf.shape, generator=stream).mul_(2).sub_(1) for leaf in hessian.leaves)
    return [signs.to(leaf.device, leaf.dtype) for signs, leaf in zip(draws, hessian.leaves, strict=True)]


@of_objective
def fisher_trace(objective: Objective) -> Estimate:
    r"""The trace of the empirical Fisher matrix, :math:`\tfrac1n \sum_i \|\nabla_w L_i(w)\|_2^2`, with its
    standard error over examples."""
    return Estimate.mean(_gradient_products(objective))


@of_objective
def fisher_rao(objective: Objective) -> Estimate:
    r"""The Fisher-Rao norm :math:`\tfrac1n \sum_i \langle w, \nabla_w L_i(w)\rangle^2` (Liang et al., AISTATS
    2019), with its standard error over examples; invariant to rescalings of layers that keep the function."""
    return Estimate.mean(_gradient_products(objective, objective.weights) ** 2)


def _gradient_products(objective: Objective, vector: Sequence[Tensor] | None = None) -> Tensor:
    """Return <vector, g_i> [n] for the weight gradient g_i of each example; <g_i, g_i> without a vector."""

    def loss(weights: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(objective.at(weights).logits(x[None]), y[None])[0]

    def product(gradient: Sequence[Tensor]) -> Tensor:
        pairs = zip(gradient if vector is None else vector, gradient, strict=True)
        return sum((a * g).double().flatten().sum() for a, g in pairs)

    try:
        products = vmap(lambda x, y: product(grad(loss)(objective.weights, x, y)), chunk_size=TOGETHER)
        return products(objective.inputs, objective.y)
    except (RuntimeError, NotImplementedError):  # an operation without a rule for vmap
        leaves = objective.leaves()
        losses = (loss(leaves, *pair) for pair in zip(objective.inputs, objective.y, strict=True))
        gradients = (torch.autograd.grad(one, leaves, materialize_grads=True) for one in losses)
        return torch.stack([product(gradient) for gradient in gradients])


@of_objective
def gradient_norm(objective: Objective) -> Estimate:
    r"""The norm of the weight gradient of the mean loss, :math:`\|\nabla_w L(w)\|_2`."""
    leaves, total = objective.leaves(), [torch.zeros_like(w) for w in objective.weights]
    for part in objective.parts:
        losses = cross_entropy(objective.at(leaves).logits(objective.inputs[part]), objective.y[part])
        gradient = torch.autograd.grad(losses.sum() / len(objective.x), leaves, materialize_grads=True)
        torch._foreach_add_(total, gradient)
    return Estimate(get_total_norm(total).item())


@of_objective
def input_gradient_norm(objective: Objective) -> Estimate:
    r"""The mean l1 norm of the input gradient, :math:`\tfrac1n \sum_i \|\nabla_x \ell(f(x_i; w), y_i)\|_1`:
    the first-order rise of the loss per unit of L-infinity epsilon. Standard error over examples."""
    norms = []
    for part in objective.parts:
        inputs = objective.inputs[part].detach().requires_grad_(True)
        total = cross_entropy(objective.unfolded.logits(inputs), objective.y[part]).sum()
        (gradient,) = torch.autograd.grad(total, inputs)
        norms.append(gradient.abs().flatten(1).sum(1))
    return Estimate.mean(torch.cat(norms))


@of_objective
def relative_flatness(objective: Objective) -> Estimate:
    r"""Relative flatness (Petzka et al., NeurIPS 2021) of the last linear layer z = V phi + b.

    .. math:: \sum_{s, s'} \langle v_s, v_{s'} \rangle\, \mathrm{Tr}(H_{s, s'}),\quad
              H_{s, s'} = \partial^2 L / \partial v_s \partial v_{s'}

    with the rows v_s of V. For the cross-entropy :math:`\mathrm{Tr} H_{s,s'}` is the mean over examples of
    :math:`\|\phi\|^2 (p_s [s = s'] - p_s p_{s'})`, so that an example contributes :math:`\|\phi\|^2 (\sum_s
    p_s \|v_s\|^2 - \|\sum_s p_s v_s\|^2)`. Invariant to scaling the features by c and V by 1 / c. The
    standard error is over examples. Raises `UndefinedError` unless an `nn.Linear` outputs the logits.
    """
    values, calls, module = [], [], copy.deepcopy(objective.net.module)
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(lambda layer, args, output: calls.append((layer, args[0], output)))
    for part in objective.parts:
        calls.clear()
        with torch.no_grad():
            logits = module(objective.inputs[part].clone())
        if not calls or not torch.equal(calls[-1][2], logits):
            raise UndefinedError("model: relative flatness is defined for a last nn.Linear")
        layer, features, _ = calls[-1]
        p, v = torch.softmax(logits.double(), dim=1), layer.weight.detach().double()
        variance = p @ (v * v).sum(1) - (p @ v).square().sum(1)
        values.append(features.double().square().sum(1) * variance)
    return Estimate.mean(torch.cat(values))


@of_objective
def margin(objective: Objective, percentile: float = 10.0, resamples: int = 200) -> Estimate:
    r"""A percentile of the margin :math:`z_y - \max_{k \ne y} z_k` (as in Kim et al., NeurIPS 2023).

    z are the logits of x or, in the robust loss, of the adversarial example of highest loss. Larger is more
    robust: comparisons of sharpness reverse its sign. The standard error is bootstrapped over examples.
    """
    logits = batched_logits(objective.unfolded, objective.inputs, objective.batch_size)
    margins = -negative_margin(logits, objective.y).double().cpu()
    n, stream = len(margins), generator(objective.seed, "margin")
    drawn = torch.randint(n, (resamples, n), generator=stream)
    spread = margins[drawn].quantile(percentile / 100, dim=1).std().item()
    return Estimate(margins.quantile(percentile / 100).item(), spread)


def weight_norm(model: nn.Module) -> Estimate:
    r"""The norm of the perturbable parameters, :math:`\|w\|_2`."""
    return Estimate(get_total_norm(list(Network.of(model).weights().values())).item())


def distance_from_init(model: nn.Module, initial: Mapping[str, Tensor]) -> Estimate:
    r"""The distance from the initial weights, :math:`\|w - w_0\|_2` (Neyshabur et al., NeurIPS 2017).
    `initial` holds w_0 by the names of the model's parameters."""
    weights = Network.of(model).weights()
    return Estimate(get_total_norm([w - initial[name].to(w) for name, w in weights.items()]).item())


def spectral_product(model: nn.Module) -> Estimate:
    r"""The product of the layers' spectral norms, :math:`\prod_l \|W_l\|_2` (Neyshabur et al., ICLR 2018).
    W_l are the perturbable parameters with more than one dimension, as matrices [out, rest]. Raises
    `UndefinedError` if there is none."""
    matrices = [w.flatten(1) for w in Network.of(model).weights().values() if w.ndim > 1]
    if not matrices:
        raise UndefinedError("model: no layer with a matrix of weights")
    logs = torch.stack([torch.linalg.matrix_norm(m.double(), ord=2).log() for m in matrices])
    return Estimate(logs.sum().exp().item())
