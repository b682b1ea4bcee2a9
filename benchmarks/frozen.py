"""The measures by a frozen copy in a few lines: channels-last, and no gradient that is not asked for.

What an experienced user would write. Starts and perturbations are given, as in `plain.py`.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def frozen(model: nn.Module) -> nn.Module:
    """An evaluation copy without gradients, laid out channels-last."""
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    return copied.to(memory_format=torch.channels_last)


def pgd_losses(
    model: nn.Module, x: Tensor, y: Tensor, start: Tensor, epsilon: float, step: float, steps: int, batch: int
) -> list[float]:
    """Highest loss of each example over the clean input and all iterates from a start."""
    return _pgd(frozen(model), x, y, start, epsilon, step, steps, batch).tolist()


def _pgd(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    start: Tensor,
    epsilon: float,
    step: float,
    steps: int,
    size: int,
) -> Tensor:
    found = []
    for i in range(0, len(x), size):
        part = slice(i, i + size)
        inputs, labels = x[part].contiguous(memory_format=torch.channels_last), y[part]
        low, high = (inputs - epsilon).clamp(min=0), (inputs + epsilon).clamp(max=1)
        with torch.no_grad():
            best = F.cross_entropy(network(inputs), labels, reduction="none")
        current = start[part].contiguous(memory_format=torch.channels_last)
        for _ in range(steps):
            current.requires_grad_(True)
            losses = F.cross_entropy(network(current), labels, reduction="none")
            (gradient,) = torch.autograd.grad(losses.sum(), current)
            best = torch.maximum(best, losses.detach())
            current = torch.clamp(current.detach() + step * gradient.sign(), low, high)
        with torch.no_grad():
            found.append(torch.maximum(best, F.cross_entropy(network(current), labels, reduction="none")))
    return torch.cat(found)


def average_losses(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    perturbations: Sequence[dict[str, Tensor]],
    starts: Sequence[Tensor],
    epsilon: float,
    step: float,
    steps: int,
    batch: int,
) -> list[float]:
    """RLoss at each of the perturbed weights, one start each."""
    network, result = frozen(model), []
    own, original = dict(network.named_parameters()), dict(model.named_parameters())
    for perturbation, start in zip(perturbations, starts, strict=True):
        for name, nu in perturbation.items():
            own[name].data.copy_(original[name].detach() + nu)
        result.append(_pgd(network, x, y, start, epsilon, step, steps, batch).mean().item())
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
    batch: int,
) -> float:
    """Mean loss after joint ascent in weights and inputs, from one start of both."""
    network = frozen(model)
    own = [p for name, p in network.named_parameters() if name in perturbation]
    nu = [tensor.clone() for tensor in perturbation.values()]
    weights = [p.detach().clone() for p in own]
    norms = [w.norm() for w in weights]
    parts = [slice(i, i + batch) for i in range(0, len(x), batch)]
    current = start.clone()

    def move() -> None:
        for parameter, weight, shift in zip(own, weights, nu, strict=True):
            parameter.data.copy_(weight + shift)

    for parameter in own:
        parameter.requires_grad_(True)
    for _ in range(steps):
        for part in parts:
            move()
            inputs = current[part].contiguous(memory_format=torch.channels_last).requires_grad_(True)
            loss = F.cross_entropy(network(inputs), y[part])
            gradient, *gradients = torch.autograd.grad(loss, [inputs, *own])
            low, high = (x[part] - epsilon).clamp(min=0), (x[part] + epsilon).clamp(max=1)
            current[part] = torch.clamp(inputs.detach() + step * gradient.sign(), low, high)
            for index, (g, norm) in enumerate(zip(gradients, norms, strict=True)):
                nu[index] += weight_step * norm * g / g.norm().clamp(min=1e-30)
                nu[index] *= (xi * norm / nu[index].norm().clamp(min=1e-30)).clamp(max=1)
    move()
    with torch.no_grad():
        losses = [F.cross_entropy(network(current[part]), y[part], reduction="sum") for part in parts]
    return (torch.stack(losses).sum() / len(x)).item()
