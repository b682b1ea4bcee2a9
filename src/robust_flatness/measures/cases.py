"""Average- and worst-case flatness: the loss at random weights of the neighbourhood, and the highest loss
over weights and inputs jointly."""

import itertools
import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from robust_flatness.architectures.folding import Ensemble
from robust_flatness.attacks.ball import steepest
from robust_flatness.attacks.pgd import PGD, Loss, batches, checked, losses_of, passing
from robust_flatness.config.values import parse
from robust_flatness.errors import ConfigError
from robust_flatness.inputs import require_finite
from robust_flatness.measures.flatness import AVERAGE, WORST, AverageSettings, WorstSettings
from robust_flatness.measures.losses import reference_losses
from robust_flatness.measures.neighborhood import Neighborhood
from robust_flatness.network import Network
from robust_flatness.runtime.isolation import isolated
from robust_flatness.runtime.progress import track
from robust_flatness.seeding import generator

#: Maximum number of examples in a joint pass of several batches, each with its own weight perturbation.
SIDE_BY_SIDE = 128


@dataclass(frozen=True)
class FlatnessResult:
    """Flatness of a loss: how much it rises in a neighbourhood of the weights, in nats.

    `value` is the measure (lower is flatter), `reference` the loss at the unperturbed weights, RLoss(w) or
    the clean one, `perturbed` the mean loss over examples of each sample or restart. For the average case,
    `reference_single` is RLoss(w) with a single start, as at the perturbed weights: as xi -> 0 the measure
    tends to `reference_single - reference` <= 0, up to the randomness of the starts.
    """

    value: float
    reference: float
    perturbed: Tensor
    reference_single: float | None = None

    @property
    def std(self) -> float | None:
        """Standard deviation over samples or restarts; None for a single one."""
        return self.perturbed.std().item() if len(self.perturbed) > 1 else None

    @property
    def standard_error(self) -> float | None:
        """Standard error of the mean over samples; None for a single one."""
        return None if self.std is None else self.std / len(self.perturbed) ** 0.5


@isolated()
def average_flatness(
    model: nn.Module, x: Tensor, y: Tensor, *, attack: PGD | None, xi: float = AVERAGE.xi[0],
    samples: int = AVERAGE.samples, batch_size: int = AVERAGE.batch_size, scope: str = AVERAGE.scope,
    seed: int = 0, reference: float | None = None, reference_single: float | None = None,
    weight_bound: float | None = None, layers: Collection[str] | None = None, precision: str | None = None,
    loss: Loss | None = None,
) -> FlatnessResult:  # fmt: skip
    r"""Return average-case flatness of the robust loss (Stutz et al. 2021, Eq. 4).

    .. math:: \mathbb{E}_\nu\Big[\tfrac1n\sum_i \max_{\|\delta\|\le\epsilon}
              L(f(x_i+\delta; w+\nu), y_i)\Big] - \mathrm{RLoss}(w)

    with `samples` draws of :math:`\nu`, uniform on the sphere :math:`\|\nu^{(l)}\|_2 = \xi\|w^{(l)}\|_2` of
    each of the `layers`, names out of `perturbed_parameters(model)` (None: all). `attack` defines the ball of
    :math:`\delta` (None: clean loss); on the perturbed network it has one random start per sample, and runs
    in `precision` (None: its own). With `scope="dataset"` there is one :math:`\nu` per sample, with `batch`
    each batch has its own; `batch_size` is the number of examples per pass.

    `model` maps inputs `x` [n, ...] in [0, 1] to logits [n, K], and is not changed; `y` are labels [n].
    `seed` is the random seed of directions and starts: models whose weights have equal shapes share both.
    `reference` and `reference_single` are RLoss(w) under the attack as given and with a single start, if
    known; else they are computed. With `weight_bound` = b, perturbed weights are clipped to [-b, b], for
    networks trained with weight clipping. `loss` is L, as `loss(logits, y) -> [n]`: differentiable, larger is
    worse; None for the cross-entropy.

    Raises `ConfigError` if an argument is out of range, or model or labels cannot be used, and
    `NonFiniteError` if a loss is NaN or infinite.
    """
    parse(AverageSettings, {"xi": [xi], "samples": samples, "batch_size": batch_size, "scope": scope})
    attack = attack and replace(attack, precision=precision or attack.precision)
    net, x, y, loss = checked(model, x, y, loss)
    ball = Neighborhood(net, xi, weight_bound, layers)
    groups = _groups(net, x, batch_size, scope)
    if reference is None or reference_single is None:
        at_once = batch_size if all(len(group) == 1 for group in groups) else SIDE_BY_SIDE
        known, single = reference_losses(net, x, y, attack, at_once, seed, loss)
        reference = known if reference is None else reference
        reference_single = single if reference_single is None else reference_single

    def mean_loss(sample: int) -> Tensor:
        start = x if attack is None else attack.start(x, generator(seed, "starts", sample))
        total, first = 0.0, 0
        for group in track(groups, "batch"):
            if first == 0 or scope == "batch":
                streams = (generator(seed, "directions", sample, first + i) for i in range(len(group)))
                networks = [net.at(ball.at(ball.on_sphere(stream))) for stream in streams]
                perturbed = networks[0] if len(networks) == 1 else Ensemble(networks)
            first += len(group)
            part = slice(group[0].start, group[-1].stop)
            losses = losses_of(perturbed, x[part], y[part], attack, start[part], loss)
            require_finite(losses, "at randomly perturbed weights", part.start)
            total = total + losses.double().sum()
        return total / len(x)

    values = torch.stack([mean_loss(sample) for sample in track(range(samples), "sample")]).cpu()
    return FlatnessResult(values.mean().item() - reference, reference, values, reference_single)


def _groups(net: Network, x: Tensor, batch_size: int, scope: str) -> list[list[slice]]:
    """Return the batches in groups, each of which is attacked in one pass by an `Ensemble`."""
    parts = list(batches(len(x), batch_size))
    full, together = len(x) // batch_size, SIDE_BY_SIDE // batch_size
    if scope == "dataset" or full < 2 or together < 2 or not Ensemble.fits(net, x):
        return [[part] for part in parts]
    count = math.ceil(full / together)
    bounds = [full * i // count for i in range(count + 1)]
    groups = [parts[first:last] for first, last in itertools.pairwise(bounds)]
    return groups + [[part] for part in parts[full:]]


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

    Weights and inputs are optimised jointly by projected gradient ascent from `restarts` random starts; one
    backward pass gives both gradients. In each of the `steps`, the inputs take the step of `attack`, within
    its ball, and each layer of :math:`\nu` a step of `weight_step` :math:`\|w^{(l)}\|_2` along its normalised
    gradient. The value is the loss at the last iterate, the highest over restarts; `perturbed` has the mean
    loss of each restart.

    With `scope="dataset"` there is one :math:`\nu` for all examples, and a step is a sweep over the batches
    that updates :math:`\nu` after each. With `scope="batch"` each batch has its own :math:`\nu` and its own
    best restart, so that `value` is at least `perturbed.max() - reference`. The search runs in `precision`
    (None: that of `attack`); reported losses are in the model's own. All other parameters, and the errors
    raised, are those of `average_flatness`.
    """
    options = {"xi": [xi], "steps": steps, "restarts": restarts, "weight_step": weight_step}
    parse(WorstSettings, options | {"batch_size": batch_size, "scope": scope})
    precision = precision or (attack.precision if attack else "float32")
    attack = attack and replace(attack, precision=precision)
    net, x, y, loss = checked(model, x, y, loss)
    ball = Neighborhood(net, xi, weight_bound, layers)
    if reference is None:
        reference, _ = reference_losses(net, x, y, attack, batch_size, seed, loss)
    parts = list(batches(len(x), batch_size))
    groups = [[part] for part in parts] if scope == "batch" else [parts]
    sums = []
    for restart in track(range(restarts), "restart"):
        start = x if attack is None else attack.start(x, generator(seed, "worst starts", restart))
        losses = []
        for index, group in enumerate(track(groups, "batch")):
            nu = ball.in_ball(generator(seed, "worst directions", restart, index))
            budget = (steps, weight_step, precision)
            losses += joint_ascent(net, ball, x, y, start, group, nu, attack, *budget, loss)
        sums.append(torch.stack(losses))
    table = torch.stack(sums).cpu() / len(x)
    perturbed = table.sum(dim=1)
    best = table.amax(dim=0).sum() if scope == "batch" else perturbed.max()
    return FlatnessResult(best.item() - reference, reference, perturbed)


def joint_ascent(
    net: Network, ball: Neighborhood, x: Tensor, y: Tensor, start: Tensor, parts: list[slice],
    nu: list[Tensor], attack: PGD | None, steps: int, weight_step: float, precision: str, loss: Loss,
) -> list[Tensor]:  # fmt: skip
    """Maximise the loss over `nu` (in place) and inputs (from `start`) by projected gradient ascent;
    return the summed loss per batch of `parts` at the last iterate."""
    inputs = [start[part] for part in parts]
    for _ in track(range(steps), "step"):
        for index, part in enumerate(track(parts, "batch")):
            weights = ball.at(nu)
            gradient, gradients = _gradients(net, weights, inputs[index], y[part], attack, precision, loss)
            with torch.no_grad():
                if gradient is not None:
                    direction = steepest(gradient, attack.norm)
                    inputs[index] = attack.step(inputs[index], direction, x[part])
                ball.step(nu, gradients, weight_step)
    perturbed, sums = net.at(ball.at(nu)), []
    for current, part in zip(inputs, parts, strict=True):
        with torch.no_grad():
            losses = loss(perturbed.logits(current), y[part])
        require_finite(losses, "at adversarially perturbed weights", part.start or 0)
        sums.append(losses.double().sum())
    return sums


def _gradients(
    net: Network, weights: dict[str, Tensor], x: Tensor, y: Tensor, attack: PGD | None, precision: str,
    loss: Loss,
) -> tuple[Tensor | None, list[Tensor]]:  # fmt: skip
    """Return the input gradient (None for the clean loss) and weight gradients of a batch's mean loss."""
    by_inputs, total = [], None
    leaves = {name: w.requires_grad_(True) for name, w in weights.items()}
    # larger passes than in attacks, since each accumulates the gradients of all weights
    for part in batches(len(x), passing(net, len(x), times=2)):
        inputs = x[part].detach().requires_grad_(attack is not None)
        mean = loss(net.at(leaves).logits(inputs, precision), y[part]).sum() / len(x)
        if not mean.requires_grad:
            raise ConfigError("model: its logits do not depend differentiably on weights or inputs")
        wanted = list(leaves.values()) + ([] if attack is None else [inputs])
        gradients = list(torch.autograd.grad(mean, wanted, materialize_grads=True))
        if attack is not None:
            by_inputs.append(gradients.pop())
        total = gradients if total is None else torch._foreach_add(total, gradients)
    return (torch.cat(by_inputs) if by_inputs else None), total
