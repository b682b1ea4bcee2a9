"""The measures by a frozen copy in a few lines: channels-last, and no gradient that is not asked for.

What an experienced user would write. Starts and perturbations are given, as in `plain.py`.
"""

import copy
import functools
from collections.abc import Iterator, Sequence

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
    """Highest loss of each example over the clean input and all iterates from a start; the adversarial
    examples, and which are misclassified on the way, are found with them."""
    network, found = frozen(model), []
    for part in _parts(x, batch):
        best, x_adv, wrong = None, x[part], torch.zeros_like(y[part], dtype=torch.bool)
        for inputs, logits, losses in _iterates(network, x[part], y[part], start[part], epsilon, step, steps):
            wrong |= logits.argmax(1) != y[part]
            better = losses > best if best is not None else torch.ones_like(wrong)
            best = torch.where(better, losses, best) if best is not None else losses
            x_adv = torch.where(better[:, None, None, None], inputs, x_adv)
        found.append(best)
    return torch.cat(found).tolist()


def _parts(x: Tensor, size: int) -> list[slice]:
    return [slice(i, i + size) for i in range(0, len(x), size)]


def _iterates(
    network: nn.Module, x: Tensor, y: Tensor, start: Tensor, epsilon: float, step: float, steps: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The clean inputs and each iterate, with logits and losses."""
    x = x.contiguous(memory_format=torch.channels_last)
    low, high = (x - epsilon).clamp(min=0), (x + epsilon).clamp(max=1)
    with torch.no_grad():
        logits = network(x)
        yield x, logits, F.cross_entropy(logits, y, reduction="none")
    current = start.contiguous(memory_format=torch.channels_last)
    for _ in range(steps):
        current.requires_grad_(True)
        logits = network(current)
        losses = F.cross_entropy(logits, y, reduction="none")
        (gradient,) = torch.autograd.grad(losses.sum(), current)
        current = current.detach()
        yield current, logits.detach(), losses.detach()
        current = torch.clamp(current + step * gradient.sign(), low, high)
    with torch.no_grad():
        logits = network(current)
        yield current, logits, F.cross_entropy(logits, y, reduction="none")


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
        total = 0.0
        for part in _parts(x, batch):
            iterates = _iterates(network, x[part], y[part], start[part], epsilon, step, steps)
            total += functools.reduce(torch.maximum, (losses for _, _, losses in iterates)).sum().item()
        result.append(total / len(x))
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
    parts = _parts(x, batch)
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
