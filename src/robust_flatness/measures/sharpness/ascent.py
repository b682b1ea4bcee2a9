"""The highest loss in a ball around the weights, by gradient ascent: SAM's, ASAM's and adaptive balls."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from robust_flatness.attacks.pgd import cross_entropy, project
from robust_flatness.measures.objective import Estimate, Head, Objective, norm, of_objective
from robust_flatness.measures.sharpness.block import DEFAULTS
from robust_flatness.measures.sharpness.noise import check_positive, normalised_logits

#: Parts of the data that are ascended on separately: m-sharpness with m an eighth of the examples.
PARTS = 8
#: `step(mu, gradient)`: mu moved along the gradient by the weights and projected.
Step = Callable[[list[Tensor], list[Tensor]], list[Tensor]]


@of_objective
def sam(objective: Objective, rho: float = DEFAULTS.sam_rho, steps: int = DEFAULTS.steps) -> Estimate:
    r"""SAM's sharpness (Foret et al., ICLR 2021) in the global ball.

    .. math:: \max_{\|\nu\|_2 \le \rho} L(w + \nu) - L(w)

    One step (`steps=1`) is SAM's own, :math:`\nu = \rho\,\nabla L / \|\nabla L\|`; more are projected
    gradient ascent, each of length rho / 4, of which the best iterate counts. In the robust loss the inputs
    move along with the weights, a signed step each; at the last iterate, which counts then, adversarial
    examples are found anew. Not invariant to rescalings of layers. The standard error is over examples.

    Raises
    ------
    ValueError
        If `rho` or `steps` is not positive.
    """
    return _in_ball(objective, torch.ones_like, rho, steps)


@of_objective
def asam(
    objective: Objective, rho: float = DEFAULTS.asam_rho, eta: float = 0.01, steps: int = DEFAULTS.steps
) -> Estimate:
    r"""ASAM's adaptive sharpness (Kwon et al., ICML 2021).

    .. math:: \max_{\|T_w^{-1}\nu\|_2 \le \rho} L(w + \nu) - L(w),\quad T_w = \mathrm{diag}(|w| + \eta)

    elementwise, with eta as in its authors' code. One step is
    :math:`\nu = \rho\, T_w^2 \nabla L / \|T_w \nabla L\|`. Invariant to rescalings of layers, but for eta.
    Otherwise as `sam`.
    """
    return _in_ball(objective, lambda w: w.abs() + eta, rho, steps)


@of_objective
def adaptive_linf_worst(
    objective: Objective,
    rho: float = DEFAULTS.worst_rho[0],
    steps: int = DEFAULTS.adaptive_steps,
    normalised: bool = False,
) -> Estimate:
    r"""Adaptive worst-case sharpness in the l-infinity norm (Andriushchenko et al., ICML 2023).

    .. math:: \tfrac1P \sum_{p} \max_{|\nu| \le \rho |w|} L_p(w + \nu) - L_p(w)

    elementwise, over P = 8 parts of the examples (m-sharpness, m = n / 8), by `steps` signed steps of rho |w|
    / 4 each. `normalised` divides each example's logits by their standard deviation. Invariant to rescalings
    of layers. The standard error is over parts. The robust loss is treated as in `sam`.

    Raises
    ------
    ValueError
        If `rho` or `steps` is not positive.
    """
    check_positive(rho=rho, steps=steps)

    def step(mu: list[Tensor], gradient: list[Tensor]) -> list[Tensor]:
        return [(m + rho / 4 * g.sign()).clamp(-rho, rho) for m, g in zip(mu, gradient, strict=True)]

    scales = [w.abs() for w in objective.weights]
    head = normalised_logits if normalised else None
    size = math.ceil(len(objective.x) / PARTS)
    starts = range(0, len(objective.x), size)
    parts = [objective.restricted(slice(start, start + size)) for start in starts]
    return Estimate.mean(torch.stack([_rise(part, scales, step, steps, head).mean() for part in parts]))


def _in_ball(objective: Objective, scale: Callable[[Tensor], Tensor], rho: float, steps: int) -> Estimate:
    """Projected ascent in ||T^-1 nu||_2 <= rho with T = diag(scale(w))."""
    check_positive(rho=rho, steps=steps)
    scales = [scale(w) for w in objective.weights]
    length = rho if steps == 1 else rho / 4

    def step(mu: list[Tensor], gradient: list[Tensor]) -> list[Tensor]:
        """mu = T^-1 nu, along T grad, and back into the ball."""
        direction = torch._foreach_mul(gradient, scales)
        size = norm(direction).clamp(min=torch.finfo(direction[0].dtype).tiny)
        torch._foreach_add_(mu, torch._foreach_mul(direction, length / size))
        shrink = (rho / norm(mu).clamp(min=torch.finfo(mu[0].dtype).tiny)).clamp(max=1.0)
        torch._foreach_mul_(mu, shrink)
        return mu

    return Estimate.mean(_rise(objective, scales, step, steps))


def _rise(
    objective: Objective, scales: list[Tensor], step: Step, steps: int, head: Head | None = None
) -> Tensor:
    """The rise [n] of the loss of each example at the iterate nu = T mu of highest mean loss, from mu = 0; in
    the robust loss at the last iterate."""
    clean, inputs = objective.attack is None, objective.inputs
    mu = [torch.zeros_like(w) for w in objective.weights]
    at, best = objective.weights, None
    for number in range(steps):
        leaves = [w.detach().requires_grad_(True) for w in at]
        inputs = inputs.detach().requires_grad_(not clean)
        logits = objective.logits(leaves, inputs)
        losses = cross_entropy(logits if head is None else head(logits), objective.y)
        wanted = leaves if clean else [*leaves, inputs]
        gradients = torch.autograd.grad(losses.mean(), wanted, materialize_grads=True)
        with torch.no_grad():
            if clean and number > 0:
                best = _higher(best, losses.detach())
            if not clean:
                moved = inputs + objective.attack.step_size * gradients[-1].sign()
                inputs = project(moved, objective.x, objective.attack.epsilon)
            mu = step(mu, list(gradients[: len(leaves)]))
            at = torch._foreach_add(objective.weights, torch._foreach_mul(mu, scales))
    last = objective.losses(at, head)
    return (_higher(best, last) if clean else last).double() - objective.reference(head).double()


def _higher(best: Tensor | None, losses: Tensor) -> Tensor:
    return losses if best is None or losses.mean() > best.mean() else best
