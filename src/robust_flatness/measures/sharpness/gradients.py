"""Gradients of single examples by the weights, of the mean loss, and by the input."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.func import grad, vmap

from robust_flatness.attacks.pgd import cross_entropy
from robust_flatness.measures.objective import Estimate, Objective, norm, of_objective

#: Examples whose gradients are held at a time.
TOGETHER = 32


@of_objective
def fisher_trace(objective: Objective) -> Estimate:
    r"""The trace of the empirical Fisher matrix.

    .. math:: \tfrac1n \sum_i \|\nabla_w L_i(w)\|_2^2

    Robust loss: at adversarial examples found at w. The standard error is over examples. Parameters as in
    `Objective`.
    """
    return Estimate.mean(torch.cat([_dots(g, g) for g in example_gradients(objective)]))


@of_objective
def fisher_rao(objective: Objective) -> Estimate:
    r"""The Fisher-Rao norm (Liang et al., AISTATS 2019).

    .. math:: \tfrac1n \sum_i \langle w, \nabla_w L_i(w)\rangle^2

    Invariant to rescalings of layers that keep the function. Otherwise as `fisher_trace`.
    """
    products = [_dots(objective.weights, g) for g in example_gradients(objective)]
    return Estimate.mean(torch.cat(products) ** 2)


def _dots(first: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """<first, gradient> of each example, [m]; `first` may have a row for each."""
    return sum((a * g).double().flatten(1).sum(1) for a, g in zip(first, gradients, strict=True))


def example_gradients(objective: Objective) -> Iterator[list[Tensor]]:
    """The gradients of single examples by the weights, some examples at a time: [m, ...] for each layer.

    Vectorised over examples where the network allows it, else one after the other.
    """

    def loss(weights: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(objective.logits(weights, x[None]), y[None])[0]

    for start in range(0, len(objective.x), TOGETHER):
        part = slice(start, start + TOGETHER)
        x, y = objective.inputs[part], objective.y[part]
        try:
            yield list(vmap(grad(loss), in_dims=(None, 0, 0))(objective.weights, x, y))
        except (RuntimeError, NotImplementedError):  # an operation without a rule for vmap
            leaves = objective.leaves()
            rows = [
                torch.autograd.grad(loss(leaves, *pair), leaves, materialize_grads=True)
                for pair in zip(x, y, strict=True)
            ]
            yield [torch.stack(tensors) for tensors in zip(*rows, strict=True)]


@of_objective
def gradient_norm(objective: Objective) -> Estimate:
    r"""The norm of the gradient of the mean loss by the weights, :math:`\|\nabla_w L(w)\|_2`.

    Robust loss: at adversarial examples found at w. No standard error.
    """
    return Estimate(norm(objective.gradient()).item())


@of_objective
def input_gradient_norm(objective: Objective) -> Estimate:
    r"""The mean l1 norm of the gradient by the input: the first-order rise of the loss per unit of epsilon.

    .. math:: \tfrac1n \sum_i \|\nabla_x \ell(f(x_i; w), y_i)\|_1

    Robust loss: the gradient at the adversarial examples. The standard error is over examples.
    """
    norms = []
    for part in objective.parts:
        inputs = objective.inputs[part].detach().requires_grad_(True)
        total = cross_entropy(objective.unfolded.logits(inputs), objective.y[part]).sum()
        (gradient,) = torch.autograd.grad(total, inputs)
        norms.append(gradient.abs().flatten(1).sum(1))
    return Estimate.mean(torch.cat(norms))
