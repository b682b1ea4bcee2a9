"""Average-case flatness: the loss at random weights of the neighbourhood."""

import itertools
import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robust_flatness.architectures.ensemble import Ensemble
from robust_flatness.attacks.pgd import PGD, batches, cross_entropy, random_start
from robust_flatness.flatness.neighborhood import Neighborhood
from robust_flatness.flatness.result import (
    FlatnessResult,
    check_measure,
    reference_losses,
    with_precision,
)
from robust_flatness.inputs import check_classes, checked_inputs, require_finite
from robust_flatness.network import Network
from robust_flatness.runtime.isolation import isolated
from robust_flatness.runtime.progress import told
from robust_flatness.seeding import generator

#: Examples of several batches, each with a perturbation of its own, that are attacked together.
SIDE_BY_SIDE = 128


@isolated()
def average_flatness(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    attack: PGD | None,
    xi: float = 0.5,
    samples: int = 10,
    batch_size: int = 128,
    scope: str = "dataset",
    seed: int = 0,
    reference: float | None = None,
    reference_single: float | None = None,
    weight_bound: float | None = None,
    layers: Collection[str] | None = None,
    precision: str | None = None,
) -> FlatnessResult:
    r"""Average-case flatness of the robust loss (Stutz et al. 2021, Eq. 4).

    .. math:: \mathbb{E}_\nu\Big[\tfrac1n\sum_i \max_{\|\delta\|_\infty\le\epsilon}
              L(f(x_i+\delta; w+\nu), y_i)\Big] - \mathrm{RLoss}(w)

    with :math:`\nu` uniform on the sphere :math:`\|\nu^{(l)}\|_2 = \xi\|w^{(l)}\|_2` of each layer.
    The attack is made on the perturbed weights, with one start per sample.

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
    scope
        `dataset`: one :math:`\nu` per sample. `batch`: each batch of `batch_size` has its own.
    seed
        Source of directions and starts; they depend on nothing else, so that models of equal
        shapes are measured in the same ones.
    reference, reference_single
        RLoss(w), where known, of the attack as given and with a single start.
    weight_bound
        Perturbed weights are projected into [-b, b], for networks trained with clipped weights.
    layers
        Names of the layers that move (`perturbed_parameters`), such as one at a time; None: all.
    precision
        Replaces the attack's precision.

    Returns
    -------
    FlatnessResult
        `perturbed` has a value per sample, its mean over examples.

    Raises
    ------
    ConfigError
        If an argument is out of range, or the model or the targets cannot be measured;
        `NonFiniteError` if a loss is NaN or infinite.
    """
    check_measure(scope, xi=xi, samples=samples, batch_size=batch_size)
    attack, _ = with_precision(attack, precision)
    x, y = checked_inputs(x, y)
    net = Network.of(model, x[:2])
    check_classes(y, net.classes)
    if True:
        ball = Neighborhood(net, xi, weight_bound, layers)
        measure = _Samples(net, ball, x, y, attack, batch_size, scope, seed)
        if reference is None or (attack is not None and reference_single is None):
            at_once = SIDE_BY_SIDE if measure.ensembles else batch_size
            known, single = reference_losses(net, x, y, attack, at_once, seed)
            reference = known if reference is None else reference
            reference_single = single if reference_single is None else reference_single
        elif attack is None:
            reference_single = reference
        perturbed = [measure.loss(sample) for sample in told(range(samples), "sample")]
    values = torch.stack(perturbed).cpu()
    return FlatnessResult(values.mean().item() - reference, reference, values, reference_single)


@dataclass
class _Samples:
    """The mean loss over all examples for the perturbation, or perturbations, of a sample."""

    net: Network
    neighborhood: Neighborhood
    x: Tensor
    y: Tensor
    attack: PGD | None
    batch_size: int
    scope: str
    seed: int

    def __post_init__(self):
        self.groups = [[part] for part in batches(len(self.x), self.batch_size)]
        self.ensembles: set[int] = set()
        if self.scope == "batch":
            self._group()

    def _group(self) -> None:
        """Let batches that are small go together: as many perturbed networks side by side."""
        full = len(self.x) // self.batch_size
        together = SIDE_BY_SIDE // self.batch_size
        if full < 2 or together < 2 or not Ensemble.fits(self.net, self.x):
            return
        parts = [part for (part,) in self.groups]
        count = math.ceil(full / together)
        bounds = [full * i // count for i in range(count + 1)]
        groups = [parts[first:last] for first, last in itertools.pairwise(bounds)]
        sizes = {len(group) for group in groups}
        self.ensembles = {size for size in sizes if size > 1}
        self.groups = groups + [[part] for part in parts[full:]]

    def loss(self, sample: int) -> Tensor:
        start = None
        if self.attack is not None:
            start = random_start(self.x, self.attack.epsilon, generator(self.seed, "starts", sample))
        total, batch = 0.0, 0
        for group in told(self.groups, "batch"):
            if batch == 0 or self.scope == "batch":
                members = [self._perturbed(sample, batch + member) for member in range(len(group))]
                net = Ensemble(members) if len(group) > 1 else members[0]
            batch += len(group)
            part = slice(group[0].start, group[-1].stop)
            total = total + self._losses(net, part, start).double().sum()
        return total / len(self.x)

    def _perturbed(self, sample: int, batch: int) -> Network:
        nu = self.neighborhood.on_sphere(generator(self.seed, "directions", sample, batch))
        return self.net.at(self.neighborhood.at(nu))

    def _losses(self, net: Network | Ensemble, part: slice, start: Tensor | None) -> Tensor:
        x, y = self.x[part], self.y[part]
        if self.attack is not None:
            losses = self.attack.losses(net, x, y, start[part])
        else:
            with torch.no_grad():
                losses = cross_entropy(net.logits(x), y)
        require_finite(losses, "at randomly perturbed weights", part.start)
        return losses
