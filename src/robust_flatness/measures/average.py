"""Average-case flatness: the loss at random weights of the neighbourhood."""

import itertools
import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from robust_flatness.architectures.folding import Ensemble
from robust_flatness.attacks.pgd import PGD, Loss, batches, losses_of
from robust_flatness.config.values import parse
from robust_flatness.inputs import require_finite
from robust_flatness.measures.flatness import AVERAGE, AverageSettings
from robust_flatness.measures.losses import checked, reference_losses
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
    each layer. The attack, which also defines the ball of :math:`\delta`, runs on the perturbed network with
    one random start per sample. Raises `ConfigError` if an argument is out of range, or model or labels
    cannot be used, and `NonFiniteError` if a loss is NaN or infinite.

    Parameters
    ----------
    model, x, y
        Network from inputs [n, ...] in [0, 1] to logits [n, K], which is not changed; inputs and labels [n].
    attack
        Attack that defines the robust loss; at perturbed weights it has one restart. None: clean loss.
    xi
        Radius of the neighbourhood, relative to the norm of each layer.
    samples
        Number of :math:`\nu`.
    batch_size
        Examples per pass.
    scope
        `dataset`: one :math:`\nu` per sample. `batch`: each batch of `batch_size` has its own.
    seed
        Random seed of directions and starts. Models whose weights have equal shapes share both.
    reference, reference_single
        RLoss(w) under the attack as given and with a single start, if known; else they are computed.
    weight_bound
        Bound b: perturbed weights are clipped to [-b, b], for networks trained with weight clipping.
    layers
        Names of the layers to perturb, a subset of `perturbed_parameters(model)`; None: all.
    precision
        Overrides the precision of `attack`.
    loss
        L, as `loss(logits, y) -> [n]`: differentiable, larger is worse; None for the cross-entropy.
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
