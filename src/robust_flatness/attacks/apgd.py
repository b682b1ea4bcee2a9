"""AutoPGD (Croce & Hein 2020, Alg. 1) in the L-infinity or the L2 ball: AutoAttack's first two attacks.
Given the same random numbers, iterates equal those of the authors' code, but an example is dropped at its
first misclassified iterate; the authors' code continues to the last iteration."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Logits = Callable[[Tensor], Tensor]

#: Intervals between checks of the step size, as fractions of the iterations: the first one, the decrease from
#: each to the next, and the shortest.
FIRST, SHORTER, SHORTEST = 0.22, 0.03, 0.06
#: A step size is halved if at most this fraction of the steps since the last check raised the loss.
RISING = 0.75
MOMENTUM = 0.75


def run_apgd(
    logits: Logits, x: Tensor, y: Tensor, epsilon: float, iterations: int, restarts: int, targets: int | None,
    generator: torch.Generator, norm: str,
) -> Tensor:  # fmt: skip
    """Run APGD-CE or, with `targets`, APGD-T; return adversarial inputs [n, ...], clean where it failed.
    APGD-T maximises the targeted difference of logits ratio (for at least 4 classes), one target after the
    other: the `targets` classes that rank second and below on the clean input. Each of the `restarts` runs
    per target has `iterations` steps and attacks the examples that withstood the earlier ones."""
    with torch.no_grad():
        clean = logits(x)
    fooled, x_adv = clean.argmax(dim=1) != y, x.clone()
    ranked = clean.sort(dim=1).indices
    for target in [None] if targets is None else [ranked[:, -rank] for rank in range(2, targets + 2)]:
        for _ in range(restarts):
            rest = (~fooled).nonzero().flatten()
            if not len(rest):
                return x_adv
            start = _start(x[rest], epsilon, norm, generator)
            aim = None if target is None else target[rest]
            hit, inputs = _run(logits, x[rest], y[rest], aim, start, epsilon, norm, iterations)
            x_adv[rest[hit]] = inputs[hit]
            fooled[rest[hit]] = True
    return x_adv


def _start(x: Tensor, epsilon: float, norm: str, generator: torch.Generator) -> Tensor:
    """Return `x` moved by `epsilon` along a random direction, uniform in the cube (L2: Gaussian)."""
    if norm == "linf":
        noise = 2 * torch.rand(x.shape, generator=generator, dtype=x.dtype).to(x.device) - 1
    else:
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
    return (x + epsilon * _normalised(noise, norm)).clamp(0, 1)


def _lengths(x: Tensor, norm: str) -> Tensor:
    """Return the norm of each example, [n, 1, ...]."""
    flat = x.flatten(1)
    found = flat.abs().amax(dim=1) if norm == "linf" else flat.square().sum(dim=1).sqrt()
    return found.view(-1, *[1] * (x.ndim - 1))


def _normalised(x: Tensor, norm: str) -> Tensor:
    return x / (_lengths(x, norm) + 1e-12)


def dlr_targeted(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Return the targeted DLR loss, [n]: -(z_y - z_t) / (z_1 - (z_3 + z_4) / 2), z_1 >= z_2 >= ..."""
    ordered = logits.sort(dim=1).values
    rows = torch.arange(len(logits), device=logits.device)
    scale = ordered[:, -1] - 0.5 * (ordered[:, -3] + ordered[:, -4]) + 1e-12
    return -(logits[rows, y] - logits[rows, target]) / scale


def _run(
    logits: Logits, x: Tensor, y: Tensor, target: Tensor | None, start: Tensor, epsilon: float, norm: str,
    steps: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return which examples were fooled, [n] bool, and their first misclassified iterates."""
    hit, inputs = torch.zeros(len(x), dtype=torch.bool, device=x.device), x.clone()
    state = {"row": torch.arange(len(x), device=x.device), "x": x, "y": y, "current": start}
    if target is not None:
        state["target"] = target
    state = _evaluate(logits, state, hit, inputs)
    loss, first = state["loss"], state["current"]
    state |= {
        "before": first, "best": first, "best_gradient": state["gradient"],
        "best_loss": loss, "checked_loss": loss, "last_loss": torch.zeros_like(loss),
        "rises": torch.zeros_like(loss), "halved": torch.ones_like(loss, dtype=torch.bool),
        "step": first.new_full((len(first), *[1] * (x.ndim - 1)), 2 * epsilon),
    }  # fmt: skip
    interval, since = max(int(FIRST * steps), 1), 0
    for step in range(steps):
        if not len(state["row"]):
            break
        _move(state, epsilon, norm, MOMENTUM if step else 1.0)
        state = _evaluate(logits, state, hit, inputs)
        _keep_best(state)
        since += 1
        if since == interval:
            _halve_steps(state, interval)
            interval = max(interval - max(int(SHORTER * steps), 1), max(int(SHORTEST * steps), 1))
            since = 0
    return hit, inputs


def _evaluate(logits: Logits, state: dict[str, Tensor], hit: Tensor, inputs: Tensor) -> dict[str, Tensor]:
    """Compute loss and gradient at the current iterates; return the state without misclassified examples."""
    current, y = state["current"].detach().requires_grad_(), state["y"]
    with torch.enable_grad():
        output = logits(current)
        if "target" in state:
            loss = dlr_targeted(output, y, state["target"])
        else:
            loss = F.cross_entropy(output, y, reduction="none")
        (gradient,) = torch.autograd.grad(loss.sum(), current)
    state = state | {"current": current.detach(), "loss": loss.detach(), "gradient": gradient}
    wrong = output.detach().argmax(dim=1) != y
    if not wrong.any():
        return state
    rows = state["row"][wrong]
    hit[rows], inputs[rows] = True, state["current"][wrong]
    return {name: value[~wrong] for name, value in state.items()}


def _move(state: dict[str, Tensor], epsilon: float, norm: str, momentum: float) -> None:
    x, current, before, gradient = state["x"], state["current"], state["before"], state["gradient"]

    def projected(z: Tensor) -> Tensor:
        if norm == "linf":
            return torch.clamp(torch.min(torch.max(z, x - epsilon), x + epsilon), 0.0, 1.0)
        distance = _lengths(z - x, norm).clamp(max=epsilon)
        return (x + _normalised(z - x, norm) * distance).clamp(0.0, 1.0)

    direction = torch.sign(gradient) if norm == "linf" else _normalised(gradient, norm)
    stepped = projected(current + state["step"] * direction)
    moved = current + (stepped - current) * momentum + (current - before) * (1 - momentum)
    state["before"], state["current"] = current, projected(moved)


def _keep_best(state: dict[str, Tensor]) -> None:
    loss = state["loss"]
    state["rises"] = state["rises"] + (loss > state["last_loss"])
    state["last_loss"] = loss
    better = loss > state["best_loss"]
    wide = better.view(state["step"].shape)
    state["best"] = torch.where(wide, state["current"], state["best"])
    state["best_gradient"] = torch.where(wide, state["gradient"], state["best_gradient"])
    state["best_loss"] = torch.where(better, loss, state["best_loss"])


def _halve_steps(state: dict[str, Tensor], interval: int) -> None:
    """Halve step sizes where the loss oscillates or stalls, and continue there from the best iterate."""
    stuck = ~state["halved"] & (state["checked_loss"] >= state["best_loss"])
    halve = (state["rises"] <= RISING * interval) | stuck
    wide = halve.view(state["step"].shape)
    state["step"] = torch.where(wide, state["step"] / 2, state["step"])
    state["current"] = torch.where(wide, state["best"], state["current"])
    state["gradient"] = torch.where(wide, state["best_gradient"], state["gradient"])
    state["halved"], state["checked_loss"] = halve, state["best_loss"]
    state["rises"] = torch.zeros_like(state["rises"])
