"""Interface of training objectives, with adversarial training as the default, and their batches."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robust_flatness.attacks.pgd import Loss
from robust_flatness.config import TrainingSpec

#: Inputs [n, C, H, W] to logits [n, K]: the network in training mode, or its evaluation copy.
Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Batch:
    """Examples of one update: augmented images `x`, their adversarial examples `x_adv`, and labels `y`, which
    attacks see; the weight update sees `target` and `smoothing` (label noise, label smoothing) instead. RLoss
    and RErr of the history are means over the examples that are `counted`."""

    x: Tensor
    y: Tensor
    target: Tensor
    counted: Tensor
    smoothing: float = 0.0
    x_adv: Tensor | None = None


class Objective:
    r"""A training method: the loss minimised over the weights, and the one maximised over the inputs.

    This one is adversarial training (Madry et al., ICLR 2018): mean over examples of CE(f(x~), y). With
    smoothing tau, y is (1 - tau) one-hot(y) + tau / K on all K classes, as in the released code (the paper's
    text puts tau / (K - 1) on the wrong classes). Subclasses replace the methods in which they differ.
    """

    def __init__(self, spec: TrainingSpec):
        self.spec = spec

    def network(self, model: nn.Module, generator: torch.Generator) -> nn.Module:
        """Return the module to train: `model` with the layers that the method adds."""
        return model

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch to augment; random choices draw from `generator`."""
        return batch

    def attack_goal(self, forward: Forward, batch: Batch) -> tuple[Tensor, Loss]:
        """Return target and loss of each example that attacks maximise; `forward` is in evaluation mode."""
        return batch.y, self.attack_loss

    def attack_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy of each example."""
        return F.cross_entropy(logits, target, reduction="none")

    def __call__(self, forward: Forward, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss of `batch`, a scalar, and the logits of its adversarial examples [n, K]."""
        logits = forward(batch.x_adv)
        return F.cross_entropy(logits, batch.target, label_smoothing=batch.smoothing), logits
