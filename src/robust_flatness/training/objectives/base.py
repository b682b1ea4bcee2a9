"""What every objective of training shares: a batch, and the form of a method."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robust_flatness.config import TrainingSpec

#: Inputs [n, C, H, W] to logits [n, K]: the network in training mode, or its evaluation copy.
Forward = Callable[[Tensor], Tensor]
#: Logits and a target with n rows to a loss per example [n].
ExampleLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Batch:
    """Examples of one update.

    `x` augmented images, `y` the labels that attacks see, `target` and `smoothing` what the weight
    update sees instead (label noise, label smoothing), `x_adv` the adversarial examples once they
    are found, `counted` which examples the history of RLoss and RErr is about.
    """

    x: Tensor
    y: Tensor
    target: Tensor
    counted: Tensor
    smoothing: float = 0.0
    x_adv: Tensor | None = None

    def for_attack(self) -> "Batch":
        """The batch as attacks on inputs or weights see it: true labels, no smoothing."""
        return replace(self, target=self.y, smoothing=0.0)


class Objective:
    """A training method: what is maximised over the inputs and minimised over the weights.

    This base class is plain adversarial training but for the loss; methods override what differs.
    """

    def __init__(self, spec: TrainingSpec):
        self.spec = spec

    def network(self, model: nn.Module, generator: torch.Generator) -> nn.Module:
        """The module that is trained, `model` with what the method adds to it."""
        return model

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch before augmentation; `generator` serves the method's own random choices."""
        return batch

    def attack_goal(self, forward: Forward, batch: Batch) -> tuple[Tensor, ExampleLoss]:
        """Target and loss per example that adversarial examples maximise; `forward` is the network
        in evaluation mode."""
        return batch.y, self.attack_loss

    def attack_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy per example."""
        return F.cross_entropy(logits, target, reduction="none")

    def __call__(self, forward: Forward, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss of `batch` (a scalar) and the logits of its adversarial examples [n, K]."""
        raise NotImplementedError
