"""Label noise in the weight update."""

import torch
from torch import Tensor


def noisy_labels(labels: Tensor, rate: float, classes: int, generator: torch.Generator) -> Tensor:
    """Each label replaced, with probability `rate`, by one uniform over all `classes`.

    The replacement may be the label itself, so a label changes with probability
    rate (1 - 1 / classes). Drawn on the device of `generator`.
    """
    source = {"generator": generator, "device": generator.device}
    replaced = torch.rand(labels.shape, **source) < rate
    other = torch.randint(classes, labels.shape, **source)
    return torch.where(replaced.to(labels.device), other.to(labels.device), labels)
