"""Self-supervision by rotation (Hendrycks et al., NeurIPS 2019)."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robust_flatness.errors import ConfigError
from robust_flatness.training.objectives.base import Batch, Forward, Objective

ROTATIONS = 4
HIDDEN = 256


class RotationNetwork(nn.Module):
    """`model` with a second head on its features that predicts the rotation of an image: linear to 256, ReLU,
    batch norm, linear to 4. The output [n, K + 4] holds the logits of the classes, then of the rotations."""

    foldable = True

    def __init__(self, model: nn.Module, generator: torch.Generator):
        super().__init__()
        self.model = model
        first, last = nn.Linear(model.feature_size, HIDDEN), nn.Linear(HIDDEN, ROTATIONS)
        self.head = nn.Sequential(first, nn.ReLU(), nn.BatchNorm1d(HIDDEN), last)
        for layer in (first, last):
            # gain sqrt 2, as in the networks
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        features = self.model.features(x)
        return torch.cat([self.model.classifier(features), self.head(features)], dim=1)


def rotate(x: Tensor, quarters: Tensor) -> Tensor:
    """Rotate image i of `x` [n, C, H, H] by `quarters[i]` times 90 degrees, counter-clockwise."""
    turned = torch.stack([x.rot90(k, (2, 3)) for k in range(ROTATIONS)])
    return turned[quarters, torch.arange(len(x), device=x.device)]


class SelfSupervision(Objective):
    """mean CE of the class on one half of the batch + lambda mean CE of the rotation on the other half.

    The second half (the last n // 2 examples) is rotated by random multiples of 90 degrees before
    augmentation, and the label of a rotated example is K + its number of quarter turns. Attacks maximise the
    cross-entropy that applies to the example's half.
    """

    def network(self, model: nn.Module, generator: torch.Generator) -> nn.Module:
        self.classes = model.classifier.out_features
        return RotationNetwork(model, generator)

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        height, width = batch.x.shape[2:]
        if height != width:
            raise ConfigError(f"objective: 'self-supervision' rotates square images, not {height}x{width}")
        plain = len(batch.x) - len(batch.x) // 2
        counted = torch.zeros_like(batch.counted[plain:])
        quarters = torch.randint(ROTATIONS, counted.shape, generator=generator, device=generator.device)
        quarters = quarters.to(batch.x.device)
        labels = self.classes + quarters
        rotated = {"x": rotate(batch.x[plain:], quarters), "y": labels, "target": labels, "counted": counted}
        return replace(batch, **{n: torch.cat([getattr(batch, n)[:plain], t]) for n, t in rotated.items()})

    def attack_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy of each example: over the logits of the classes, or, for a rotated example
        (`target` >= K), over those of the rotations."""
        rotated = target >= self.classes
        of_class = torch.arange(logits.shape[1], device=logits.device) < self.classes
        own = logits.masked_fill(of_class == rotated[:, None], -torch.inf)
        return F.cross_entropy(own, target, reduction="none")

    def __call__(self, forward: Forward, batch: Batch) -> tuple[Tensor, Tensor]:
        plain = len(batch.x) - len(batch.x) // 2
        logits = forward(batch.x_adv)
        classes, rotations = logits[:, : self.classes], logits[plain:, self.classes :]
        loss = F.cross_entropy(classes[:plain], batch.target[:plain], label_smoothing=batch.smoothing)
        rotation_loss = F.cross_entropy(rotations, batch.target[plain:] - self.classes)
        return loss + self.spec.objective_weight * rotation_loss, classes
