"""Balls of admissible perturbations in the L-infinity and the L2 norm: projections, starts, steps."""

import torch
from torch import Tensor


def lengths(x: Tensor) -> Tensor:
    """Return the L2 norm of each example of `x` [n, ...], shaped [n, 1, ...] for broadcasting."""
    return torch.linalg.vector_norm(x.flatten(1), dim=1).view(-1, *[1] * (x.ndim - 1))


def project(x_adv: Tensor, x: Tensor, epsilon: float, norm: str = "linf") -> Tensor:
    """Project `x_adv` onto the ball around `x`, then onto [0, 1].

    In the L-infinity norm this is the projection onto the intersection of both. In the L2 norm it is a point
    of the intersection, since clipping brings no coordinate further from `x`, but not always the nearest one
    (as in Rice, Wong & Kolter 2020, and AutoAttack)."""
    if norm == "linf":
        return torch.clamp(x_adv, (x - epsilon).clamp_(min=0), (x + epsilon).clamp_(max=1))
    delta = x_adv - x
    shrink = epsilon / lengths(delta).clamp(min=epsilon)
    return (x + delta * shrink).clamp_(0, 1)


def random_start(x: Tensor, epsilon: float, generator: torch.Generator, norm: str = "linf") -> Tensor:
    """Draw starts uniformly from the ball around `x` and project them onto [0, 1]. They are drawn on the
    generator's device, so that a CPU generator gives the same starts on every device. In the L2 ball in D
    dimensions: a Gaussian direction at a distance of epsilon u^(1/D), u uniform in [0, 1]."""
    where = {"dtype": x.dtype, "device": generator.device, "generator": generator}
    if norm == "linf":
        noise = torch.rand(x.shape, **where)
        return project(x + noise.to(x.device).mul_(2).sub_(1).mul_(epsilon), x, epsilon)
    direction, share = torch.randn(x.shape, **where), torch.rand(len(x), **where)
    distance = epsilon * share.pow(1 / x[0].numel()).view(-1, *[1] * (x.ndim - 1))
    return project(x + (direction / lengths(direction) * distance).to(x.device), x, epsilon, norm)


def steepest(gradient: Tensor, norm: str) -> Tensor:
    """Return the direction of steepest ascent for a step of length 1 in `norm`: the sign of the gradient, or
    each example's gradient divided by its L2 norm; zero where the gradient is zero."""
    if norm == "linf":
        return gradient.sign()
    tiny = torch.finfo(gradient.dtype).tiny
    largest = gradient.flatten(1).abs().amax(1).view(-1, *[1] * (gradient.ndim - 1))
    scaled = gradient / largest.clamp(min=tiny)  # the squares of tiny gradients would underflow
    return scaled / lengths(scaled).clamp(min=tiny)
