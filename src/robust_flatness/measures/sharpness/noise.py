"""The loss under Gaussian noise relative to each weight: adaptive average-case sharpness, and the noise
tolerated."""

import math

import torch
from torch import Tensor

from robust_flatness.measures.objective import Estimate, Head, Objective, draw, of_objective
from robust_flatness.measures.sharpness.block import DEFAULTS
from robust_flatness.seeding import generator

#: Range of sigma that is searched, relative to the weights.
SMALLEST, LARGEST = 1e-4, 10.0


def normalised_logits(logits: Tensor) -> Tensor:
    r"""Logits z [n, K] over each example's spread :math:`\sqrt{\tfrac1K\sum_k (z_k - \bar z)^2}`."""
    spread = logits.std(dim=1, keepdim=True, correction=0)
    return logits / spread.clamp(min=torch.finfo(logits.dtype).tiny)


@of_objective
def adaptive_average(
    objective: Objective,
    rho: float = DEFAULTS.average_rho[0],
    samples: int = DEFAULTS.samples,
    normalised: bool = False,
) -> Estimate:
    r"""Adaptive average-case sharpness (Andriushchenko et al., ICML 2023).

    .. math:: \mathbb{E}_{\nu \sim N(0, \rho^2\,\mathrm{diag}(w^2))}\, L(w + \nu) - L(w)

    over `samples` draws, over which the standard error is. Adversarial examples are found anew at w + nu.
    Otherwise as `adaptive_linf_worst`.
    """
    check_positive(rho=rho, samples=samples)
    head = normalised_logits if normalised else None
    reference = objective.reference(head).double().mean()
    losses = [_noisy_loss(objective, rho, sample, head) for sample in range(samples)]
    return Estimate.mean(torch.stack(losses) - reference)


@of_objective
def pacbayes_sigma(
    objective: Objective,
    rise: float = 0.1,
    samples: int = DEFAULTS.samples,
    iterations: int = DEFAULTS.halvings,
) -> Estimate:
    r"""1 / sigma^2 for the largest sigma that the mean loss tolerates (after Jiang et al., ICLR 2020).

    .. math:: \mathbb{E}_{\nu \sim N(0, \sigma^2\,\mathrm{diag}(w^2))}\, L(w + \nu) - L(w) \le \text{rise}

    Noise is relative to each weight, so that rescalings of layers change nothing. The source bounds the rise
    of the training *error*; here it is that of the loss. By bisection in log sigma between 1e-4 and 10, the
    same `samples` draws at each of `iterations` halvings. The standard error follows from those of the
    samples at the two ends of the last bracket; None if the rise stays below the bound up to the end of the
    range or above it from its start, where that end counts. Adversarial examples are found anew.

    Raises
    ------
    ValueError
        If a number is not positive.
    """
    check_positive(rise=rise, samples=samples, iterations=iterations)
    reference = objective.reference().double().mean()

    def excess(log_sigma: float) -> Tensor:
        losses = [_noisy_loss(objective, 10.0**log_sigma, sample) for sample in range(samples)]
        # a loss that overflowed has risen, too
        return torch.stack(losses).nan_to_num(nan=torch.inf, posinf=1e9) - reference - rise

    low, high = math.log10(SMALLEST), math.log10(LARGEST)
    at_low, at_high = excess(low), excess(high)
    for end, value in ((low, -at_low.mean()), (high, at_high.mean())):
        if value < 0:
            return Estimate(10.0 ** (-2 * end))
    for _ in range(iterations):
        middle = (low + high) / 2
        at_middle = excess(middle)
        if at_middle.mean() <= 0:
            low, at_low = middle, at_middle
        else:
            high, at_high = middle, at_middle
    value = 10.0 ** (-2 * low)
    if samples == 1:
        return Estimate(value)
    # d value / d rise, from the bracket: the noise of the rise becomes that of the value
    slope = (10.0 ** (-2 * high) - value) / (at_high.mean() - at_low.mean()).item()
    return Estimate(value, abs(slope) * at_low.std().item() / samples**0.5)


def check_positive(**numbers: float) -> None:
    """Raise `ValueError` for a number that is not positive."""
    for name, value in numbers.items():
        if not value > 0:
            raise ValueError(f"{name}: {value} given, but it must be > 0")


def _noisy_loss(objective: Objective, rho: float, sample: int, head: Head | None = None) -> Tensor:
    """The mean loss at w + nu for draw number `sample` of nu ~ N(0, rho^2 w^2)."""
    noise = draw(objective.weights, generator(objective.seed, "adaptive", sample))
    at = torch._foreach_addcmul(objective.weights, objective.weights, noise, value=rho)
    return objective.losses(at, head, sample).double().mean()
