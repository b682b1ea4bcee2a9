"""Gradients of single examples by the weights, of the mean loss, and by the input."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from robust_flatness.attacks.pgd import cross_entropy
from robust_flatness.sharpness.base import Loss, Objective, SharpnessResult, dot, norm


def fisher_trace(
    model: nn.Module, x: Tensor, y: Tensor, *, loss: Loss = "ce", batch_size: int = 128, seed: int = 0
) -> SharpnessResult:
    r"""The trace of the empirical Fisher matrix.

    .. math:: \tfrac1n \sum_i \|\nabla_w L_i(w)\|_2^2

    Robust loss: at adversarial examples found at w. The standard error is over examples. Parameters as in
    `Objective`.
    """
    objective = Objective(model, x, y, loss, batch_size, seed)
    return SharpnessResult.mean(torch.stack([dot(g, g) for g in example_gradients(objective)]))


def fisher_rao(
    model: nn.Module, x: Tensor, y: Tensor, *, loss: Loss = "ce", batch_size: int = 128, seed: int = 0
) -> SharpnessResult:
    r"""The Fisher-Rao norm (Liang et al., AISTATS 2019).

    .. math:: \tfrac1n \sum_i \langle w, \nabla_w L_i(w)\rangle^2

    Invariant to rescalings of layers that keep the function. Otherwise as `fisher_trace`.
    """
    objective = Objective(model, x, y, loss, batch_size, seed)
    products = [dot(objective.weights, g) for g in example_gradients(objective)]
    return SharpnessResult.mean(torch.stack(products).double() ** 2)


def example_gradients(objective: Objective) -> Iterator[list[Tensor]]:
    """The gradient of each example's loss by the weights, one after the other."""
    leaves = [w.detach().requires_grad_(True) for w in objective.weights]
    for part in objective.parts:
        with torch.enable_grad():
            losses = objective.fixed(leaves, part)
        for index, single in enumerate(losses):
            last = index == len(losses) - 1
            yield list(torch.autograd.grad(single, leaves, retain_graph=not last, materialize_grads=True))


def gradient_norm(
    model: nn.Module, x: Tensor, y: Tensor, *, loss: Loss = "ce", batch_size: int = 128, seed: int = 0
) -> SharpnessResult:
    r"""The norm of the gradient of the mean loss by the weights, :math:`\|\nabla_w L(w)\|_2`.

    Robust loss: at adversarial examples found at w. No standard error.
    """
    return SharpnessResult(norm(Objective(model, x, y, loss, batch_size, seed).gradient()).item())


def input_gradient_norm(
    model: nn.Module, x: Tensor, y: Tensor, *, loss: Loss = "ce", batch_size: int = 128, seed: int = 0
) -> SharpnessResult:
    r"""The mean l1 norm of the gradient by the input: the first-order rise of the loss per unit of epsilon.

    .. math:: \tfrac1n \sum_i \|\nabla_x \ell(f(x_i; w), y_i)\|_1

    Robust loss: the gradient at the adversarial examples. The standard error is over examples.
    """
    objective = Objective(model, x, y, loss, batch_size, seed)
    norms = []
    for part in objective.parts:
        inputs = objective.inputs[part].detach().requires_grad_(True)
        with torch.enable_grad():
            total = cross_entropy(objective.logits(objective.weights, inputs), objective.y[part]).sum()
        (gradient,) = torch.autograd.grad(total, inputs)
        norms.append(gradient.abs().flatten(1).sum(1))
    return SharpnessResult.mean(torch.cat(norms))
