"""Result of a flatness measure, and its reference: the loss at the unperturbed weights."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from robust_flatness.attacks.found import better
from robust_flatness.attacks.pgd import PGD, Loss, batches, cross_entropy
from robust_flatness.boundary import try_loss
from robust_flatness.inputs import check_classes, checked_inputs, require_finite
from robust_flatness.network import Network
from robust_flatness.runtime.progress import stage
from robust_flatness.seeding import generator


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

    @cached_property
    def std(self) -> float | None:
        """Standard deviation over samples or restarts; None for a single one."""
        return self.perturbed.std().item() if len(self.perturbed) > 1 else None

    @cached_property
    def standard_error(self) -> float | None:
        """Standard error of the mean over samples; None for a single one."""
        return None if self.std is None else self.std / len(self.perturbed) ** 0.5

    def as_json(self) -> dict[str, float | None]:
        """Return the scalar results by name."""
        names = ("value", "reference", "reference_single", "std", "standard_error")
        return {name: getattr(self, name) for name in names}


def checked(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss | None = None
) -> tuple[Network, Tensor, Tensor]:
    """Return the model as a `Network`, validated inputs, and labels as int64. Model and `loss` are tried on
    `x[:2]`; raises `ConfigError` if one of them cannot be used, or inputs and labels do not fit the model."""
    x, y = checked_inputs(x, y)
    net = Network.of(model, x[:2])
    check_classes(y, net.classes)
    if loss is not None:
        try_loss(loss, net.logits(x[:2]), y[:2])
    return net, x, y


def reference_losses(
    net: Network, x: Tensor, y: Tensor, attack: PGD | None, batch_size: int, seed: int,
    loss: Loss = cross_entropy,
) -> tuple[float, float]:  # fmt: skip
    """Return RLoss(w) under all starts and under the first one; without attack, the clean loss twice."""
    if attack is None:
        value = loss(clean_logits(net, x, batch_size), y).double().mean().item()
        return value, value
    starts = generator(seed, "reference")
    with stage("loss at the unperturbed weights"):
        result = first = replace(attack, restarts=1)(net, x, y, batch_size, starts, loss)
        if attack.restarts > 1:
            others = replace(attack, restarts=attack.restarts - 1)
            result = better(first, others(net, x, y, batch_size, starts, loss))
    return result.loss.double().mean().item(), first.loss.double().mean().item()


@torch.no_grad()
def clean_logits(net: Network, x: Tensor, batch_size: int) -> Tensor:
    """Return the logits [n, K] of `x`, in batches; raises `NonFiniteError` if one is NaN or infinite."""
    logits = torch.cat([net.logits(x[part]) for part in batches(len(x), batch_size)])
    require_finite(logits, "on clean inputs")
    return logits
