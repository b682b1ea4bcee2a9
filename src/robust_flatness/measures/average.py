"""Average-case flatness: the loss at random weights of the neighbourhood."""

import itertools
import math
from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor, nn

from robust_flatness.architectures.folding import Ensemble
from robust_flatness.attacks.pgd import PGD, Loss, batches, cross_entropy, losses_of
from robust_flatness.config.values import parse
from robust_flatness.inputs import require_finite
from robust_flatness.measures.flatness import AVERAGE, AverageSettings
from robust_flatness.measures.neighborhood import Neighborhood
from robust_flatness.measures.result import FlatnessResult, checked, reference_losses
from robust_flatness.network import Network
from robust_flatness.runtime.isolation import isolated
from robust_flatness.runtime.progress import track
from robust_flatness.seeding import generator

#: Most examples that are attacked together where each small batch has its own perturbation.
SIDE_BY_SIDE = 128


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
    each layer. The attack, whose norm bounds :math:`\delta`, is made on the perturbed weights, with one start
    per sample. `perturbed` of the result has the mean loss of each sample.

    Parameters
    ----------
    model
        Inputs [n, ...] in [0, 1] to logits [n, K]; not changed.
    x, y
        Inputs and labels.
    attack
        Attack of RLoss(w); at perturbed weights it has one restart. None measures the clean loss.
    xi
        Relative radius.
    samples
        Number of :math:`\nu`.
    batch_size
        Examples per pass.
    scope
        `dataset`: one :math:`\nu` per sample. `batch`: each batch of `batch_size` has its own.
    seed
        Source of directions and starts; they depend on nothing else, so that models of equal shapes are
        measured in the same ones.
    reference, reference_single
        RLoss(w), where known, by the attack as given and with a single start.
    weight_bound
        Perturbed weights are projected into [-b, b], for networks trained with clipped weights.
    layers
        Names of the layers that are perturbed (`perturbed_parameters`), such as one at a time; None: all.
    precision
        Replaces the attack's precision.
    loss
        L, as `loss(logits, y) -> [n]`: differentiable, larger is worse; None for the cross-entropy.

    Returns
    -------
    FlatnessResult
        `perturbed` has a value per sample, its mean over examples.

    Raises
    ------
    ConfigError
        If an argument is out of range, or the model or the targets cannot be measured; `NonFiniteError` if a
        loss is NaN or infinite.
    """
    parse(AverageSettings, {"xi": [xi], "samples": samples, "batch_size": batch_size, "scope": scope})
    attack = attack and replace(attack, precision=precision or attack.precision)
    net, x, y = checked(model, x, y, loss)
    criterion = loss or cross_entropy
    ball = Neighborhood(net, xi, weight_bound, layers)
    groups = _groups(net, x, batch_size, scope)
    if reference is None or (attack is not None and reference_single is None):
        at_once = batch_size if all(len(group) == 1 for group in groups) else SIDE_BY_SIDE
        known, single = reference_losses(net, x, y, attack, at_once, seed, criterion)
        reference = known if reference is None else reference
        reference_single = single if reference_single is None else reference_single
    elif attack is None:
        reference_single = reference

    def network(sample: int, first: int, count: int) -> Network | Ensemble:
        """The network perturbed for batch `first`, or the `count` networks for those from there on."""
        streams = (generator(seed, "directions", sample, first + member) for member in range(count))
        networks = [net.at(ball.at(ball.on_sphere(stream))) for stream in streams]
        return networks[0] if count == 1 else Ensemble(networks)

    def mean_loss(sample: int) -> Tensor:
        start = x if attack is None else attack.start(x, generator(seed, "starts", sample))
        total, first = 0.0, 0
        for group in track(groups, "batch"):
            if first == 0 or scope == "batch":
                perturbed = network(sample, first, len(group))
            first += len(group)
            part = slice(group[0].start, group[-1].stop)
            losses = losses_of(perturbed, x[part], y[part], attack, start[part], criterion)
            require_finite(losses, "at randomly perturbed weights", part.start)
            total = total + losses.double().sum()
        return total / len(x)

    values = torch.stack([mean_loss(sample) for sample in track(range(samples), "sample")]).cpu()
    return FlatnessResult(values.mean().item() - reference, reference, values, reference_single)


def _groups(net: Network, x: Tensor, batch_size: int, scope: str) -> list[list[slice]]:
    """The batches, in groups that are attacked together by networks side by side."""
    parts = list(batches(len(x), batch_size))
    full, together = len(x) // batch_size, SIDE_BY_SIDE // batch_size
    if scope == "dataset" or full < 2 or together < 2 or not Ensemble.fits(net, x):
        return [[part] for part in parts]
    count = math.ceil(full / together)
    bounds = [full * i // count for i in range(count + 1)]
    groups = [parts[first:last] for first, last in itertools.pairwise(bounds)]
    return groups + [[part] for part in parts[full:]]
