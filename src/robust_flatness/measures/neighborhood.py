"""The neighbourhood of the weights in which flatness is measured."""

from collections.abc import Sequence

import torch
from torch import Tensor

from robust_flatness.errors import ConfigError
from robust_flatness.network import Network


class Neighborhood:
    r"""Neighbourhood of the weights with a radius relative to each layer's norm (Stutz et al. 2021, Eq. 3).

    .. math:: B_\xi(w) = \{w + \nu : \|\nu^{(l)}\|_2 \le \xi \|w^{(l)}\|_2 \text{ for every } l\}

    around the weights w of `net`. A perturbation is a list of tensors in the order of `names`; it is zero
    where a weight tensor is zero and, if `layers` is given, in all other layers. With `weight_bound` = b,
    perturbed weights are also clipped to [-b, b]; raises `ConfigError` if w lies outside.
    """

    def __init__(
        self, net: Network, xi: float, weight_bound: float | None = None, layers: Sequence[str] | None = None
    ):
        weights = net.weights()
        self.names, self.weights = list(weights), list(weights.values())
        self.norms = torch._foreach_norm(self.weights)
        if layers is not None and (not layers or {*layers} - {*self.names}):
            raise ConfigError(f"layers: {[*layers]} given; expected some of {', '.join(self.names)}")
        moving = [float(layers is None or name in layers) for name in self.names]
        self.radii = torch._foreach_mul(torch._foreach_mul(self.norms, xi), moving)
        self.weight_bound = weight_bound
        if weight_bound is not None:
            largest = max(weight.abs().max().item() for weight in self.weights)
            if not largest <= weight_bound * (1 + 1e-6):
                raise ConfigError(f"weight_bound: {weight_bound} given, but weights go up to {largest:.6g}")

    def directions(self, generator: torch.Generator) -> list[Tensor]:
        """Return directions uniform on each layer's unit sphere, equal for equal generators and shapes."""
        first = self.weights[0]
        sizes = [weight.numel() for weight in self.weights]
        flat = torch.randn(sum(sizes), dtype=first.dtype, device=generator.device, generator=generator)
        parts = flat.to(first.device).split(sizes)
        pairs = zip(self.weights, parts, strict=True)
        nu = [torch.empty_like(weight).copy_(part.view(weight.shape)) for weight, part in pairs]
        torch._foreach_div_(nu, _positive(torch._foreach_norm(nu)))
        return nu

    def on_sphere(self, generator: torch.Generator) -> list[Tensor]:
        """Return a perturbation uniform on the sphere of radius xi ||w^(l)|| of each layer."""
        return self.within_bound(torch._foreach_mul(self.directions(generator), self.radii))

    def in_ball(self, generator: torch.Generator) -> list[Tensor]:
        """Return a perturbation of random direction whose norm is uniform in [0, xi ||w^(l)||]."""
        nu, first = self.directions(generator), self.weights[0]
        share = torch.rand(len(nu), dtype=first.dtype, device=generator.device, generator=generator)
        norms = torch._foreach_mul(self.radii, list(share.to(first.device).unbind()))
        return self.within_bound(torch._foreach_mul(nu, norms))

    def project(self, nu: list[Tensor]) -> list[Tensor]:
        """Project `nu` in place onto the ball of each layer, then clip w + nu to the weight bound."""
        shrink = torch._foreach_div(self.radii, _positive(torch._foreach_norm(nu)))
        torch._foreach_mul_(nu, torch._foreach_clamp_max(shrink, 1.0))
        return self.within_bound(nu)

    def step(self, nu: list[Tensor], gradients: Sequence[Tensor], size: float) -> list[Tensor]:
        """Move `nu` by `size` ||w^(l)|| along each layer's normalised gradient and project it; in place."""
        # normalised first: a norm divided by a tiny length may overflow
        unit = torch._foreach_div(gradients, _positive(torch._foreach_norm(gradients)))
        torch._foreach_addcmul_(nu, unit, torch._foreach_mul(self.norms, size))
        return self.project(nu)

    def within_bound(self, nu: list[Tensor]) -> list[Tensor]:
        """Change `nu` in place so that w + nu lies in [-b, b]."""
        if self.weight_bound is not None:
            at = torch._foreach_add(self.weights, nu)
            torch._foreach_clamp_min_(at, -self.weight_bound)
            torch._foreach_clamp_max_(at, self.weight_bound)
            torch._foreach_copy_(nu, torch._foreach_sub(at, self.weights))
        return nu

    def at(self, nu: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the weights w + nu by name."""
        return dict(zip(self.names, torch._foreach_add(self.weights, list(nu)), strict=True))


def _positive(norms: Sequence[Tensor]) -> list[Tensor]:
    """Return the norms clamped to tiny positive values, for use as divisors."""
    return torch._foreach_clamp_min(list(norms), torch.finfo(norms[0].dtype).tiny)
