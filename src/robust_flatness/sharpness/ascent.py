"""The highest loss in a ball around the weights, by gradient ascent: SAM's, ASAM's and adaptive balls."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from robust_flatness.attacks.pgd import cross_entropy, project
from robust_flatness.sharpness.base import Loss, Objective, SharpnessResult, norm


def sam(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    loss: Loss = "ce",
    batch_size: int = 128,
    seed: int = 0,
    rho: float = 0.05,
    steps: int = 20,
) -> SharpnessResult:
    r"""SAM's sharpness (Foret et al., ICLR 2021) in the global ball.

    .. math:: \max_{\|\nu\|_2 \le \rho} L(w + \nu) - L(w)

    One step (`steps=1`) is SAM's own, :math:`\nu = \rho\,\nabla L / \|\nabla L\|`; more are projected
    gradient ascent, each of length rho / 4, of which the best iterate counts. In the robust loss the inputs
    move along with the weights, a signed step each; at the last iterate, which counts then, adversarial
    examples are found anew. Not invariant to rescalings of layers. The standard error is over examples.

    Raises
    ------
    ValueError
        If `rho` is not positive or there is no step.
    """
    return _ascended(Objective(model, x, y, loss, batch_size, seed), torch.ones_like, rho, steps)


def asam(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    loss: Loss = "ce",
    batch_size: int = 128,
    seed: int = 0,
    rho: float = 0.5,
    eta: float = 0.01,
    steps: int = 20,
) -> SharpnessResult:
    r"""ASAM's adaptive sharpness (Kwon et al., ICML 2021).

    .. math:: \max_{\|T_w^{-1}\nu\|_2 \le \rho} L(w + \nu) - L(w),\quad T_w = \mathrm{diag}(|w| + \eta)

    elementwise, with eta as in its authors' code. One step is
    :math:`\nu = \rho\, T_w^2 \nabla L / \|T_w \nabla L\|`. Invariant to rescalings of layers, but for eta.
    Otherwise as `sam`.
    """
    return _ascended(Objective(model, x, y, loss, batch_size, seed), lambda w: w.abs() + eta, rho, steps)


def _ascended(
    objective: Objective, scale: Callable[[Tensor], Tensor], rho: float, steps: int
) -> SharpnessResult:
    """Projected ascent in ||T^-1 nu||_2 <= rho with T = diag(scale(w))."""
    if not rho > 0:
        raise ValueError(f"rho: {rho} given, but it must be > 0")
    if steps < 1:
        raise ValueError(f"steps: {steps} given, but it must be at least 1")
    scales = [scale(w) for w in objective.weights]
    length = rho if steps == 1 else rho / 4

    def move(mu: list[Tensor], gradient: list[Tensor]) -> list[Tensor]:
        """mu = T^-1 nu, along T grad, and back into the ball."""
        direction = torch._foreach_mul(gradient, scales)
        size = norm(direction).clamp(min=torch.finfo(direction[0].dtype).tiny)
        torch._foreach_add_(mu, torch._foreach_mul(direction, length / size))
        shrink = (rho / norm(mu).clamp(min=torch.finfo(mu[0].dtype).tiny)).clamp(max=1.0)
        torch._foreach_mul_(mu, shrink)
        return mu

    return SharpnessResult.mean(rise(objective, scales, move, steps))


def rise(
    objective: Objective,
    scales: list[Tensor],
    move: Callable[[list[Tensor], list[Tensor]], list[Tensor]],
    steps: int,
    part: slice = slice(None),
    head: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The rise of the loss of each example at the highest of the iterates nu = T mu of `move`, from mu = 0;
    in the robust loss at the last one.

    `move(mu, gradient)` makes a step in `mu` from the gradient by the weights; `part` are the examples
    ascended on, `head` is applied to logits.
    """
    x, y = objective.x[part], objective.y[part]
    clean = objective.attack is None
    inputs = objective.inputs[part]
    mu = [torch.zeros_like(w) for w in objective.weights]
    at = objective.weights
    local = objective.restricted(part)
    reference, best = local.losses(head=head), None
    for step in range(steps):
        leaves = [w.detach().requires_grad_(True) for w in at]
        inputs = inputs.detach().requires_grad_(not clean)
        with torch.enable_grad():
            logits = objective.logits(leaves, inputs)
            losses = cross_entropy(logits if head is None else head(logits), y)
            mean = losses.mean()
        wanted = leaves if clean else [*leaves, inputs]
        found = torch.autograd.grad(mean, wanted, materialize_grads=True)
        with torch.no_grad():
            if clean and step > 0:
                best = _higher(best, losses.detach())
            if not clean:
                moved = inputs + objective.attack.step_size * found[-1].sign()
                inputs = project(moved, x, objective.attack.epsilon)
            mu = move(mu, list(found[: len(leaves)]))
            at = torch._foreach_add(objective.weights, torch._foreach_mul(mu, scales))
    last = local.losses(at, head)
    return (_higher(best, last) if clean else last).double() - reference.double()


def _higher(best: Tensor | None, losses: Tensor) -> Tensor:
    return losses if best is None or losses.mean() > best.mean() else best
