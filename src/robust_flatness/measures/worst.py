"""Worst-case flatness: the highest loss in the neighbourhood, over weights and inputs jointly."""

from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from robust_flatness.attacks.ball import steepest
from robust_flatness.attacks.pgd import PGD, Loss, batches, cross_entropy, passing
from robust_flatness.config.values import parse
from robust_flatness.errors import ConfigError
from robust_flatness.inputs import require_finite
from robust_flatness.measures.flatness import WORST, WorstSettings
from robust_flatness.measures.neighborhood import Neighborhood
from robust_flatness.measures.result import FlatnessResult, checked, reference_losses
from robust_flatness.network import Network
from robust_flatness.runtime.isolation import isolated
from robust_flatness.runtime.progress import track
from robust_flatness.seeding import generator


@isolated()
def worst_flatness(
    model: nn.Module, x: Tensor, y: Tensor, *, attack: PGD | None, xi: float = WORST.xi[0],
    steps: int = WORST.steps, restarts: int = WORST.restarts, weight_step: float = WORST.weight_step,
    batch_size: int = WORST.batch_size, scope: str = WORST.scope, seed: int = 0,
    reference: float | None = None, weight_bound: float | None = None,
    layers: Collection[str] | None = None, precision: str | None = None, loss: Loss | None = None,
) -> FlatnessResult:  # fmt: skip
    r"""Return worst-case flatness of the robust loss (Stutz et al. 2021, Eq. 5).

    .. math:: \max_{\nu \in B_\xi(w),\ \|\delta_i\|\le\epsilon}
              \tfrac1n\sum_i L(f(x_i+\delta_i; w+\nu), y_i) - \mathrm{RLoss}(w)

    Weights and inputs are optimised jointly by projected gradient ascent; one backward pass gives both
    gradients. The inputs take the attack's step, each layer of :math:`\nu` a step of `weight_step`
    :math:`\|w^{(l)}\|_2` along its normalised gradient. The value is the loss at the last iterate, the
    highest over restarts; `perturbed` has the mean loss of each restart.

    Parameters
    ----------
    attack
        Attack that defines the robust loss; its ball and step size also apply to the joint optimisation.
        None: clean loss.
    steps, restarts
        Steps of the joint optimisation, and random starts (of weights and inputs).
    weight_step
        Step size in the weights, relative to the norm of each layer.
    batch_size
        Examples per step in the weights.
    scope
        `dataset`: one :math:`\nu` for all examples; a step is a sweep over the batches that updates
        :math:`\nu` after each. `batch`: each batch has its own :math:`\nu`, and its own best restart.
    precision
        Overrides the precision of `attack`; reported losses are in the model's own precision.

    All other parameters are those of `average_flatness`.

    Returns
    -------
    FlatnessResult
        `perturbed` holds the mean loss over examples of each restart. With `scope="batch"` the maximum over
        restarts is taken for each batch, so `value` is at least `perturbed.max() - reference`.

    Raises
    ------
    ConfigError
        If an argument is out of range, or the model or the targets cannot be measured; `NonFiniteError` if a
        loss is NaN or infinite.
    """
    options = {"xi": [xi], "steps": steps, "restarts": restarts, "weight_step": weight_step}
    parse(WorstSettings, options | {"batch_size": batch_size, "scope": scope})
    precision = precision or (attack.precision if attack else "float32")
    attack = attack and replace(attack, precision=precision)
    net, x, y = checked(model, x, y, loss)
    criterion = loss or cross_entropy
    ball = Neighborhood(net, xi, weight_bound, layers)
    if reference is None:
        reference, _ = reference_losses(net, x, y, attack, batch_size, seed, criterion)
    search = JointSearch(net, ball, attack, steps, weight_step, precision, criterion)
    parts = list(batches(len(x), batch_size))
    groups = [[part] for part in parts] if scope == "batch" else [parts]
    sums = []
    for restart in track(range(restarts), "restart"):
        start = x
        if attack is not None:
            start = attack.start(x, generator(seed, "worst starts", restart))
        losses = []
        for index, group in enumerate(track(groups, "batch")):
            directions = generator(seed, "worst directions", restart, index)
            losses += search.run(x, y, start, group, directions)[1]
        sums.append(torch.stack(losses))
    table = torch.stack(sums).cpu() / len(x)
    perturbed = table.sum(dim=1)
    best = table.amax(dim=0).sum() if scope == "batch" else perturbed.max()
    return FlatnessResult(best.item() - reference, reference, perturbed)


@dataclass
class JointSearch:
    """Projected gradient ascent in weights and inputs jointly, from one start of both."""

    net: Network
    neighborhood: Neighborhood
    attack: PGD | None
    steps: int
    weight_step: float
    precision: str
    loss: Loss = cross_entropy

    def run(
        self, x: Tensor, y: Tensor, start: Tensor, parts: list[slice], directions: torch.Generator
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the final perturbation of the weights, and under it the summed loss of each batch."""
        ball = self.neighborhood
        nu = ball.in_ball(directions)
        inputs = [start[part] for part in parts]
        for _ in track(range(self.steps), "step"):
            for index, part in enumerate(track(parts, "batch")):
                gradient, gradients = self._gradients(nu, inputs[index], y[part])
                with torch.no_grad():
                    if gradient is not None:
                        direction = steepest(gradient, self.attack.norm)
                        inputs[index] = self.attack.step(inputs[index], direction, x[part])
                    ball.step(nu, gradients, self.weight_step)
        perturbed, sums = self.net.at(ball.at(nu)), []
        for current, part in zip(inputs, parts, strict=True):
            with torch.no_grad():
                losses = self.loss(perturbed.logits(current), y[part])
            require_finite(losses, "at adversarially perturbed weights", part.start or 0)
            sums.append(losses.double().sum())
        return nu, sums

    def _gradients(self, nu: list[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor | None, list[Tensor]]:
        """Return the input gradient (None for the clean loss) and weight gradients of a batch's mean loss."""
        by_inputs, total = [], None
        leaves = {name: w.requires_grad_(True) for name, w in self.neighborhood.at(nu).items()}
        # larger passes than in attacks, since each accumulates the gradients of all weights
        for part in batches(len(x), passing(self.net, len(x), times=2)):
            inputs = x[part].detach().requires_grad_(self.attack is not None)
            losses = self.loss(self.net.at(leaves).logits(inputs, self.precision), y[part])
            loss = losses.sum() / len(x)
            if not loss.requires_grad:
                raise ConfigError("model: its logits do not depend differentiably on weights or inputs")
            wanted = list(leaves.values()) + ([] if self.attack is None else [inputs])
            gradients = list(torch.autograd.grad(loss, wanted, materialize_grads=True))
            if self.attack is not None:
                by_inputs.append(gradients.pop())
            total = gradients if total is None else torch._foreach_add(total, gradients)
        return (torch.cat(by_inputs) if by_inputs else None), total
