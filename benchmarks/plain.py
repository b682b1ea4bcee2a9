"""The measures written down the usual way, to compare with: equal results, no care for speed.

Gradients come from `loss.backward()` through all parameters, perturbed networks are deep copies,
and the best iterate of each example is kept by a loop in Python. Starts and perturbations are
given, so that results can be compared number by number.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def pgd_losses(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    starts: Sequence[Tensor],
    epsilon: float,
    step: float,
    steps: int,
    norm: str = "linf",
) -> list[float]:
    """Highest loss of each example over the clean input and all iterates from all starts."""
    model.eval()
    best = [loss.item() for loss in F.cross_entropy(model(x), y, reduction="none")]
    best_delta = torch.zeros_like(x)
    for start in starts:
        delta = (start - x).detach()
        for iteration in range(steps + 1):
            delta.requires_grad_(True)
            losses = F.cross_entropy(model(x + delta), y, reduction="none")
            for i in range(len(x)):
                if losses[i].item() > best[i]:
                    best[i] = losses[i].item()
                    best_delta[i] = delta[i].detach()
            if iteration < steps:
                model.zero_grad()
                losses.sum().backward()
                delta = _stepped(x, delta, epsilon, step, norm)
    return best


def _stepped(x: Tensor, delta: Tensor, epsilon: float, step: float, norm: str) -> Tensor:
    """`delta` after a step along its gradient, projected onto the ball, then onto the box."""
    if norm == "linf":
        moved = (delta.detach() + step * delta.grad.sign()).clamp(-epsilon, epsilon)
    else:
        pairs = zip(delta.detach(), delta.grad, strict=True)
        stepped = [d + step * gradient / max(gradient.norm().item(), 1e-30) for d, gradient in pairs]
        moved = torch.stack([d * min(1.0, epsilon / d.norm().item()) for d in stepped])
    return (x + moved).clamp(0, 1) - x


def average_losses(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    perturbations: Sequence[dict[str, Tensor]],
    starts: Sequence[Tensor],
    epsilon: float,
    step: float,
    steps: int,
    batch_size: int,
    norm: str = "linf",
) -> list[float]:
    """RLoss at each of the perturbed weights, one start each."""
    result = []
    for perturbation, start in zip(perturbations, starts, strict=True):
        perturbed = copy.deepcopy(model)
        for name, parameter in perturbed.named_parameters():
            if name in perturbation:
                parameter.data += perturbation[name]
        losses = []
        for i in range(0, len(x), batch_size):
            part = slice(i, i + batch_size)
            losses += pgd_losses(perturbed, x[part], y[part], [start[part]], epsilon, step, steps, norm)
        result.append(sum(losses) / len(losses))
    return result


def worst_loss(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    perturbation: dict[str, Tensor],
    start: Tensor,
    xi: float,
    weight_step: float,
    epsilon: float,
    step: float,
    steps: int,
    batch_size: int,
    norm: str = "linf",
) -> float:
    """Mean loss after joint ascent in weights and inputs, from one start of both."""
    nu = {name: tensor.clone() for name, tensor in perturbation.items()}
    original = {name: p.detach().clone() for name, p in model.named_parameters() if name in nu}
    deltas = (start - x).detach()
    for _ in range(steps):
        for i in range(0, len(x), batch_size):
            inputs, labels = x[i : i + batch_size], y[i : i + batch_size]
            perturbed = _perturbed(model, nu)
            delta = deltas[i : i + batch_size].clone().requires_grad_(True)
            losses = F.cross_entropy(perturbed(inputs + delta), labels, reduction="none")
            losses.mean().backward()
            deltas[i : i + batch_size] = _stepped(inputs, delta, epsilon, step, norm)
            for name, parameter in perturbed.named_parameters():
                if name in nu:
                    size = original[name].norm()
                    gradient = parameter.grad / max(parameter.grad.norm().item(), 1e-30)
                    nu[name] = nu[name] + weight_step * size * gradient
                    length = nu[name].norm()
                    if length > xi * size:
                        nu[name] = nu[name] * (xi * size / length)
    perturbed, total = _perturbed(model, nu), 0.0
    for i in range(0, len(x), batch_size):
        part = slice(i, i + batch_size)
        with torch.no_grad():
            losses = F.cross_entropy(perturbed(x[part] + deltas[part]), y[part], reduction="none")
        total += sum(loss.item() for loss in losses)
    return total / len(x)


def _perturbed(model: nn.Module, nu: dict[str, Tensor]) -> nn.Module:
    perturbed = copy.deepcopy(model).eval()
    for name, parameter in perturbed.named_parameters():
        if name in nu:
            parameter.data += nu[name]
    return perturbed
