"""Average-case flatness: the loss at random weights of the neighbourhood."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from robust_flatness.attacks.pgd import PGD, batches, cross_entropy, random_start
from robust_flatness.flatness.neighborhood import Neighborhood
from robust_flatness.flatness.result import (
    FlatnessResult,
    check_measure,
    reference_losses,
    with_precision,
)
from robust_flatness.models.inference import InferenceModel
from robust_flatness.seeding import generator

Progress = Callable[[int, int], None]


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
    precision: str | None = None,
    progress: Progress | None = None,
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
    precision
        Replaces the attack's precision.
    progress
        Called with (samples done, samples).

    Returns
    -------
    FlatnessResult
        `perturbed` has a value per sample, its mean over examples.

    Raises
    ------
    ValueError
        If an argument is out of range or the model's output has the wrong shape.
    """
    check_measure(x, y, scope, xi=xi, samples=samples, batch_size=batch_size)
    attack, _ = with_precision(attack, precision)
    net = InferenceModel(model, x[:2])
    if reference is None or (attack is not None and reference_single is None):
        known, single = reference_losses(net, x, y, attack, batch_size, seed)
        reference = known if reference is None else reference
        reference_single = single if reference_single is None else reference_single
    elif attack is None:
        reference_single = reference
    neighborhood = Neighborhood(net, xi, weight_bound)
    perturbed = []
    for sample in range(samples):
        perturbed.append(_perturbed_loss(net, neighborhood, x, y, attack, batch_size, scope, (seed, sample)))
        if progress is not None:
            progress(sample + 1, samples)
    values = torch.stack(perturbed).cpu()
    return FlatnessResult(values.mean().item() - reference, reference, values, reference_single)


def _perturbed_loss(
    net: InferenceModel,
    neighborhood: Neighborhood,
    x: Tensor,
    y: Tensor,
    attack: PGD | None,
    batch_size: int,
    scope: str,
    stream: tuple[int, int],
) -> Tensor:
    """Mean loss over all examples for the perturbation or perturbations of one sample."""
    seed, sample = stream
    start = None if attack is None else random_start(x, attack.epsilon, generator(seed, "starts", sample))
    total = 0.0
    for batch, part in enumerate(batches(len(x), batch_size)):
        if batch == 0 or scope == "batch":
            directions = generator(seed, "directions", sample, batch)
            net.refresh(neighborhood.at(neighborhood.on_sphere(directions)))
        if attack is None:
            with torch.no_grad():
                losses = cross_entropy(net(x[part]), y[part])
        else:
            losses = attack.losses(net, x[part], y[part], start[part])
        total = total + losses.double().sum()
    return total / len(x)
