"""The rise of the loss around the weights: SAM's, ASAM's and adaptive sharpness, and PAC-Bayes' sigma."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from robust_flatness.attacks.ball import steepest
from robust_flatness.measures.objective import Estimate, Objective, of_objective
from robust_flatness.measures.sharpness.block import DEFAULTS
from robust_flatness.seeding import generator

#: Number of parts of the data that are maximised over separately (m-sharpness with m = n / 8).
PARTS = 8


@of_objective
def sam(objective: Objective, rho: float = DEFAULTS.sam_rho, steps: int = DEFAULTS.steps) -> Estimate:
    r"""SAM's sharpness (Foret et al., ICLR 2021) in the global ball.

    .. math:: \max_{\|\nu\|_2 \le \rho} L(w + \nu) - L(w)

    One step (`steps=1`) is SAM's own perturbation, :math:`\nu = \rho\,\nabla L / \|\nabla L\|`; more are
    projected gradient ascent with steps of length rho / 4, whose best iterate is used. For the robust loss,
    each step also moves the inputs by a step of the attack; the value is then the loss at the last iterate,
    with new adversarial examples. Not invariant to rescalings of layers. The standard error is over examples.
    Raises `ValueError` if `rho` or `steps` is not positive.
    """
    return _in_ball(objective, torch.ones_like, rho, steps)


@of_objective
def asam(
    objective: Objective, rho: float = DEFAULTS.asam_rho, eta: float = 0.01, steps: int = DEFAULTS.steps
) -> Estimate:
    r"""ASAM's adaptive sharpness (Kwon et al., ICML 2021).

    .. math:: \max_{\|T_w^{-1}\nu\|_2 \le \rho} L(w + \nu) - L(w),\quad T_w = \mathrm{diag}(|w| + \eta)

    elementwise, with eta as in its authors' code. One step is :math:`\nu = \rho\, T_w^2 \nabla L / \|T_w
    \nabla L\|`. Invariant to rescalings of layers, but for eta. Otherwise as `sam`.
    """
    return _in_ball(objective, lambda w: w.abs() + eta, rho, steps)


def _in_ball(objective: Objective, scale: Callable[[Tensor], Tensor], rho: float, steps: int) -> Estimate:
    """Maximise the loss by projected ascent in ||T^-1 nu||_2 <= rho with T = diag(scale(w))."""
    _check_positive(rho=rho, steps=steps)
    scales = [scale(w) for w in objective.weights]
    length = rho if steps == 1 else rho / 4

    def step(mu: list[Tensor], gradient: list[Tensor]) -> list[Tensor]:
        direction = torch._foreach_mul(gradient, scales)
        tiny = torch.finfo(mu[0].dtype).tiny
        factor = length / get_total_norm(direction).clamp(min=tiny)
        torch._foreach_add_(mu, torch._foreach_mul(direction, factor))
        torch._foreach_mul_(mu, (rho / get_total_norm(mu).clamp(min=tiny)).clamp(max=1.0))
        return mu

    return Estimate.mean(_rise(objective, scales, step, steps))


@of_objective
def adaptive_linf_worst(
    objective: Objective, rho: float = DEFAULTS.worst_rho[0], steps: int = DEFAULTS.adaptive_steps,
    normalised: bool = False,
) -> Estimate:  # fmt: skip
    r"""Adaptive worst-case sharpness in the l-infinity norm (Andriushchenko et al., ICML 2023).

    .. math:: \tfrac1P \sum_{p} \max_{|\nu| \le \rho |w|} L_p(w + \nu) - L_p(w)

    elementwise, over P = 8 parts of the examples (m-sharpness, m = n / 8), by `steps` signed steps of rho |w|
    / 4 each. `normalised` divides each example's logits by their standard deviation. Invariant to rescalings
    of layers. The standard error is over parts. Otherwise as `sam`.
    """
    _check_positive(rho=rho, steps=steps)

    def step(mu: list[Tensor], gradient: list[Tensor]) -> list[Tensor]:
        return [(m + rho / 4 * g.sign()).clamp(-rho, rho) for m, g in zip(mu, gradient, strict=True)]

    scales, size = [w.abs() for w in objective.weights], math.ceil(len(objective.x) / PARTS)
    rises = []
    for first in range(0, len(objective.x), size):
        part = objective.restricted(slice(first, first + size))
        rises.append(_rise(part.normalised if normalised else part, scales, step, steps).mean())
    return Estimate.mean(torch.stack(rises))


@of_objective
def adaptive_average(
    objective: Objective, rho: float = DEFAULTS.average_rho[0], samples: int = DEFAULTS.samples,
    normalised: bool = False,
) -> Estimate:  # fmt: skip
    r"""Adaptive average-case sharpness (Andriushchenko et al., ICML 2023).

    .. math:: \mathbb{E}_{\nu \sim N(0, \rho^2\,\mathrm{diag}(w^2))}\, L(w + \nu) - L(w)

    estimated from `samples` draws, as is the standard error. Adversarial examples are recomputed at w + nu.
    Otherwise as `adaptive_linf_worst`.
    """
    _check_positive(rho=rho, samples=samples)
    objective = objective.normalised if normalised else objective
    losses = [_noisy_loss(objective, rho, sample) for sample in range(samples)]
    return Estimate.mean(torch.stack(losses) - objective.reference().double().mean())


@of_objective
def pacbayes_sigma(
    objective: Objective, rise: float = 0.1, samples: int = DEFAULTS.samples,
    iterations: int = DEFAULTS.halvings,
) -> Estimate:  # fmt: skip
    r"""1 / sigma^2 for the largest sigma that the mean loss tolerates (after Jiang et al., ICLR 2020).

    .. math:: \mathbb{E}_{\nu \sim N(0, \sigma^2\,\mathrm{diag}(w^2))}\, L(w + \nu) - L(w) \le \text{rise}

    Noise is relative to each weight, so that rescalings of layers change nothing. The source bounds the rise
    of the training *error*, here it is that of the loss. Bisection of log sigma between 1e-4 and 10, with the
    same `samples` draws at each of `iterations` halvings; adversarial examples are recomputed for each. The
    standard error is that of the samples, propagated through the last bracket; None at an end of the range,
    if the bound is not crossed.
    """
    _check_positive(rise=rise, samples=samples, iterations=iterations)
    reference = objective.reference().double().mean()

    def excess(log_sigma: float) -> Tensor:
        losses = [_noisy_loss(objective, 10.0**log_sigma, sample) for sample in range(samples)]
        # a loss that overflowed has risen, too
        return torch.stack(losses).nan_to_num(nan=torch.inf, posinf=1e9) - reference - rise

    low, high = -4.0, 1.0
    at_low, at_high = excess(low), excess(high)
    if at_low.mean() > 0 or at_high.mean() < 0:
        return Estimate(10.0 ** (-2 * (low if at_low.mean() > 0 else high)))
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


def _check_positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not value > 0:
            raise ValueError(f"{name}: {value} given, but it must be > 0")


def _noisy_loss(objective: Objective, rho: float, sample: int) -> Tensor:
    """Return the mean loss at w + nu for draw number `sample` of nu ~ N(0, rho^2 w^2)."""
    stream, weights = generator(objective.seed, "adaptive", sample), objective.weights
    noise = [torch.randn(w.shape, dtype=w.dtype, generator=stream).to(w.device) for w in weights]
    at = torch._foreach_addcmul(weights, weights, noise, value=rho)
    return objective.losses(at, sample).double().mean()


def _rise(objective: Objective, scales: list[Tensor], step: Callable, steps: int) -> Tensor:
    """Return the rise [n] of each example's loss at the iterate nu = T mu of highest mean loss, starting from
    mu = 0; for the robust loss, at the last iterate. `step(mu, gradient)` returns the next mu."""
    clean, inputs = objective.attack is None, objective.inputs
    mu = [torch.zeros_like(w) for w in objective.weights]
    at, iterates = objective.weights, []
    for number in range(steps):
        leaves = [w.detach().requires_grad_(True) for w in at]
        inputs = inputs.detach().requires_grad_(not clean)
        losses = objective.loss(objective.at(leaves).logits(inputs), objective.y)
        wanted = leaves if clean else [*leaves, inputs]
        gradients = torch.autograd.grad(losses.mean(), wanted, materialize_grads=True)
        with torch.no_grad():
            if clean and number > 0:
                iterates.append(losses.detach())
            if not clean:
                direction = steepest(gradients[-1], objective.attack.norm)
                inputs = objective.attack.step(inputs, direction, objective.x)
            mu = step(mu, list(gradients[: len(leaves)]))
            at = torch._foreach_add(objective.weights, torch._foreach_mul(mu, scales))
    best = max([*iterates, objective.losses(at)], key=torch.mean)
    return best.double() - objective.reference().double()
