"""Derivatives of the loss at w: its Hessian and Fisher matrices, and gradients by weights and inputs."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, eigsh
from torch import Tensor, nn
from torch.func import grad, vmap

from robust_flatness.attacks.pgd import cross_entropy
from robust_flatness.errors import ConfigError, UndefinedError
from robust_flatness.measures.objective import Estimate, Objective, dot, norm, of_objective
from robust_flatness.measures.sharpness.block import DEFAULTS
from robust_flatness.measures.spectrum import Hessian
from robust_flatness.seeding import derive_seed, generator

#: Examples whose gradients are held at a time.
TOGETHER = 32


@of_objective
def hessian_eigenvalue(objective: Objective, tolerance: float = 0.01, iterations: int = 300) -> Estimate:
    r"""The largest eigenvalue of :math:`\nabla_w^2 L(w)` (Keskar et al., ICLR 2017; Dinh et al., ICML 2017).

    By Lanczos' method to a relative accuracy of `tolerance`, in at most `iterations` restarts; if these do
    not suffice, the largest Ritz value is returned. The robust loss is taken at adversarial examples found at
    w and kept fixed. Not invariant: weights of a convolution before a batch norm scaled by s divide their
    block by s squared. No standard error. Parameters as in `Objective`.
    """
    hessian = _hessian(objective)
    start = np.random.default_rng(derive_seed(objective.seed, "lanczos")).standard_normal(hessian.shape[0])
    options = {"tol": tolerance, "v0": start, "maxiter": iterations, "return_eigenvectors": False}
    try:
        values = eigsh(hessian, k=1, which="LA", **options)
    except ArpackNoConvergence as error:
        values = error.eigenvalues
        if not len(values):
            raise ConfigError(f"hessian_eigenvalue: not converged after {iterations} restarts") from None
    return Estimate(float(values.max()))


@of_objective
def hessian_trace(objective: Objective, samples: int = DEFAULTS.vectors) -> Estimate:
    r"""The trace of :math:`\nabla_w^2 L(w)` by Hutchinson's estimator (Keskar et al. 2017, Dinh et al. 2017).

    .. math:: \mathrm{Tr}\,H \approx \tfrac1S \sum_s v_s^\top H v_s,\quad v_s \in \{-1, 1\}^P

    with `samples` Rademacher vectors; the standard error is over them. Otherwise as `hessian_eigenvalue`.
    """
    streams = (generator(objective.seed, "hutchinson", sample) for sample in range(samples))
    return Estimate.mean(quadratic_forms(_hessian(objective), streams))


def quadratic_forms(hessian: Hessian, streams: Iterable[torch.Generator]) -> Tensor:
    r"""Return :math:`v^\top H v` for a Rademacher vector v drawn from each of the streams, [S]."""
    vectors = (rademacher(hessian, stream) for stream in streams)
    return torch.stack([dot(vector, hessian.product(vector)) for vector in vectors])


def rademacher(hessian: Hessian, stream: torch.Generator) -> list[Tensor]:
    """Return a vector of signs in the shapes of the layers."""
    draws = (torch.randint(2, leaf.shape, generator=stream).mul_(2).sub_(1) for leaf in hessian.leaves)
    return [signs.to(leaf.device, leaf.dtype) for signs, leaf in zip(draws, hessian.leaves, strict=True)]


def _hessian(objective: Objective) -> Hessian:
    return Hessian(objective.unfolded, objective.names, objective.inputs, objective.y, objective.batch_size)


@of_objective
def fisher_trace(objective: Objective) -> Estimate:
    r"""The trace of the empirical Fisher matrix, :math:`\tfrac1n \sum_i \|\nabla_w L_i(w)\|_2^2`.

    Robust loss: at adversarial examples found at w. The standard error is over examples. Parameters as in
    `Objective`.
    """
    return Estimate.mean(torch.cat([_dots(g, g) for g in _example_gradients(objective)]))


@of_objective
def fisher_rao(objective: Objective) -> Estimate:
    r"""The Fisher-Rao norm :math:`\tfrac1n \sum_i \langle w, \nabla_w L_i(w)\rangle^2` (Liang et al., AISTATS
    2019). Invariant to rescalings of layers that keep the function. Otherwise as `fisher_trace`.
    """
    products = [_dots(objective.weights, g) for g in _example_gradients(objective)]
    return Estimate.mean(torch.cat(products) ** 2)


def _dots(first: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """<first, gradient> of each example, [m]; `first` may have a row for each."""
    return sum((a * g).double().flatten(1).sum(1) for a, g in zip(first, gradients, strict=True))


def _example_gradients(objective: Objective) -> Iterator[list[Tensor]]:
    """The gradients of single examples by the weights, some examples at a time: [m, ...] for each layer."""

    def loss(weights: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(objective.at(weights).logits(x[None]), y[None])[0]

    for start in range(0, len(objective.x), TOGETHER):
        part = slice(start, start + TOGETHER)
        x, y = objective.inputs[part], objective.y[part]
        try:
            yield list(vmap(grad(loss), in_dims=(None, 0, 0))(objective.weights, x, y))
        except (RuntimeError, NotImplementedError):  # an operation without a rule for vmap
            leaves = objective.leaves()
            losses = (loss(leaves, *pair) for pair in zip(x, y, strict=True))
            rows = [torch.autograd.grad(one, leaves, materialize_grads=True) for one in losses]
            yield [torch.stack(tensors) for tensors in zip(*rows, strict=True)]


@of_objective
def gradient_norm(objective: Objective) -> Estimate:
    r"""The norm of the gradient of the mean loss by the weights, :math:`\|\nabla_w L(w)\|_2`.

    Robust loss: at adversarial examples found at w. No standard error.
    """
    leaves, total = objective.leaves(), [torch.zeros_like(w) for w in objective.weights]
    for part in objective.parts:
        losses = cross_entropy(objective.at(leaves).logits(objective.inputs[part]), objective.y[part])
        gradient = torch.autograd.grad(losses.sum() / len(objective.x), leaves, materialize_grads=True)
        torch._foreach_add_(total, gradient)
    return Estimate(norm(total).item())


@of_objective
def input_gradient_norm(objective: Objective) -> Estimate:
    r"""The mean l1 norm of the gradient by the input, :math:`\tfrac1n \sum_i \|\nabla_x \ell(f(x_i; w),
    y_i)\|_1`: the first-order rise of the loss per unit of epsilon.

    Robust loss: the gradient at the adversarial examples. The standard error is over examples.
    """
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

    with the rows v_s of V. For the cross-entropy the Hessian in this layer is known: :math:`\mathrm{Tr}
    H_{s,s'}` is the mean over examples of :math:`\|\phi\|^2 (p_s [s = s'] - p_s p_{s'})`, so that an example
    contributes :math:`\|\phi\|^2 (\sum_s p_s \|v_s\|^2 - \|\sum_s p_s v_s\|^2)`. Invariant to scaling the
    features by c and V by 1 / c. Robust loss: at adversarial examples found at w. The standard error is over
    examples. Raises `UndefinedError` if the network's logits are not the output of a linear layer.
    """
    module, values = objective.net.module, []
    calls: list[tuple[nn.Linear, Tensor, Tensor]] = []
    handles = [
        layer.register_forward_hook(lambda layer, args, out: calls.append((layer, args[0], out)))
        for layer in module.modules()
        if isinstance(layer, nn.Linear)
    ]
    try:
        for part in objective.parts:
            calls.clear()
            with torch.no_grad():
                logits = module(objective.inputs[part].clone())
            last = next((call for call in reversed(calls) if call[2].shape == logits.shape), None)
            if last is None or not torch.equal(last[2], logits):
                raise UndefinedError("model: relative flatness is defined for a last nn.Linear")
            layer, features, _ = last
            p, v = torch.softmax(logits.double(), dim=1), layer.weight.detach().double()
            variance = p @ (v * v).sum(1) - (p @ v).square().sum(1)
            values.append(features.double().square().sum(1) * variance)
    finally:
        for handle in handles:
            handle.remove()
    return Estimate.mean(torch.cat(values))
