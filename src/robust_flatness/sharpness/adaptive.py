"""Adaptive sharpness in elementwise boxes around the weights."""

import math

import torch
from torch import Tensor, nn

from robust_flatness.seeding import generator
from robust_flatness.sharpness.ascent import rise
from robust_flatness.sharpness.base import Loss, Objective, SharpnessResult, draw

#: Parts of the data that are ascended on apart: m-sharpness with m an eighth of the examples.
PARTS = 8


def normalised_logits(logits: Tensor) -> Tensor:
    r"""Logits z [n, K] over each example's spread :math:`\sqrt{\tfrac1K\sum_k (z_k - \bar z)^2}`."""
    spread = logits.std(dim=1, keepdim=True, correction=0)
    return logits / spread.clamp(min=torch.finfo(logits.dtype).tiny)


def adaptive_linf_worst(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    loss: Loss = "ce",
    batch_size: int = 128,
    seed: int = 0,
    rho: float = 0.001,
    steps: int = 20,
    normalised: bool = False,
) -> SharpnessResult:
    r"""Adaptive worst-case sharpness in the l-infinity norm (Andriushchenko et al., ICML 2023).

    .. math:: \tfrac1P \sum_{p} \max_{|\nu| \le \rho |w|} L_p(w + \nu) - L_p(w)

    elementwise, over P = 8 parts of the examples (m-sharpness, m = n / 8), by `steps` signed steps of
    rho |w| / 4 each. `normalised` divides each example's logits by their standard deviation. Invariant to
    rescalings of layers. The standard error is over parts. The robust loss is treated as in `sam`.

    Raises
    ------
    ValueError
        If `rho` is not positive.
    """
    _check(rho)
    objective = Objective(model, x, y, loss, batch_size, seed)
    scales = [w.abs() for w in objective.weights]

    def move(mu: list[Tensor], gradient: list[Tensor]) -> list[Tensor]:
        return [(m + rho / 4 * g.sign()).clamp(-rho, rho) for m, g in zip(mu, gradient, strict=True)]

    size = math.ceil(len(x) / PARTS)
    head = normalised_logits if normalised else None
    means = [
        rise(objective, scales, move, steps, slice(start, start + size), head).mean()
        for start in range(0, len(x), size)
    ]
    return SharpnessResult.mean(torch.stack(means))


def adaptive_average(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    loss: Loss = "ce",
    batch_size: int = 128,
    seed: int = 0,
    rho: float = 0.1,
    samples: int = 8,
    normalised: bool = False,
) -> SharpnessResult:
    r"""Adaptive average-case sharpness (Andriushchenko et al., ICML 2023).

    .. math:: \mathbb{E}_{\nu \sim N(0, \rho^2\,\mathrm{diag}(w^2))}\, L(w + \nu) - L(w)

    over `samples` draws, over which the standard error is. Adversarial examples are found anew at w + nu.
    Otherwise as `adaptive_linf_worst`.
    """
    _check(rho)
    objective = Objective(model, x, y, loss, batch_size, seed)
    head = normalised_logits if normalised else None
    reference = objective.losses(head=head).double().mean()
    return SharpnessResult.mean(
        torch.stack([noisy_loss(objective, rho, sample, head) - reference for sample in range(samples)])
    )


def noisy_loss(objective: Objective, rho: float, sample: int, head=None) -> Tensor:
    """The mean loss at w + nu for draw number `sample` of nu ~ N(0, rho^2 w^2)."""
    noise = draw(objective.weights, generator(objective.seed, "adaptive", sample))
    at = torch._foreach_addcmul(objective.weights, objective.weights, noise, value=rho)
    return objective.losses(at, head, sample).double().mean()


def _check(rho: float) -> None:
    if not rho > 0:
        raise ValueError(f"rho: {rho} given, but it must be > 0")
