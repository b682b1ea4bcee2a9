"""Gradients of single examples by the weights, of the mean loss, and by the input."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from robust_flatness.attacks.pgd import cross_entropy
from robust_flatness.sharpness.base import Loss, Objective, SharpnessResult, norm

#: Examples whose gradients are held at a time.
TOGETHER = 32


def fisher_trace(
    model: nn.Module, x: Tensor, y: Tensor, *, loss: Loss = "ce", batch_size: int = 128, seed: int = 0
) -> SharpnessResult:
    r"""The trace of the empirical Fisher matrix.

    .. math:: \tfrac1n \sum_i \|\nabla_w L_i(w)\|_2^2

    Robust loss: at adversarial examples found at w. The standard error is over examples. Parameters as in
    `Objective`.
    """
    objective = Objective(model, x, y, loss, batch_size, seed)
    return SharpnessResult.mean(torch.cat([_dots(g, g) for g in example_gradients(objective)]))


def fisher_rao(
    model: nn.Module, x: Tensor, y: Tensor, *, loss: Loss = "ce", batch_size: int = 128, seed: int = 0
) -> SharpnessResult:
    r"""The Fisher-Rao norm (Liang et al., AISTATS 2019).

    .. math:: \tfrac1n \sum_i \langle w, \nabla_w L_i(w)\rangle^2

    Invariant to rescalings of layers that keep the function. Otherwise as `fisher_trace`.
    """
    objective = Objective(model, x, y, loss, batch_size, seed)
    products = [_dots(objective.weights, g) for g in example_gradients(objective)]
    return SharpnessResult.mean(torch.cat(products) ** 2)


def _dots(first: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """<first, gradient> of each example, [m]; `first` may have a row for each."""
    return sum((a * g).double().flatten(1).sum(1) for a, g in zip(first, gradients, strict=True))


def example_gradients(objective: Objective) -> Iterator[list[Tensor]]:
    """The gradients of single examples by the weights, some examples at a time: [m, ...] for each layer.

    Vectorised over examples where the network allows it, else one after the other.
    """

    def loss(weights: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(objective.logits(weights, x[None]), y[None])[0]

    together = vmap(grad(loss), in_dims=(None, 0, 0))
    for start in range(0, len(objective.x), TOGETHER):
        part = slice(start, start + TOGETHER)
        x, y = objective.inputs[part], objective.y[part]
        try:
            found = together(objective.weights, x, y)
        except (RuntimeError, NotImplementedError):  # an operation without a rule for vmap
            single = [_gradient(loss, objective, *pair) for pair in zip(x, y, strict=True)]
            found = [torch.stack(tensors) for tensors in zip(*single, strict=True)]
        yield found


def _gradient(loss, objective: Objective, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    leaves = [w.detach().requires_grad_(True) for w in objective.weights]
    with torch.enable_grad():
        return torch.autograd.grad(loss(leaves, x, y), leaves, materialize_grads=True)


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
