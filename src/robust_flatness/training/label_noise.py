"""Label noise in the weight update."""

import torch
from torch import Tensor


def noisy_labels(labels: Tensor, rate: float, classes: int, generator: torch.Generator) -> Tensor:
    """Each label replaced, with probability `rate`, by one uniform over all `classes`.

    The replacement may be the label itself, so a label changes with probability
    rate (1 - 1 / classes). Drawn on the CPU from `generator`.
    """
    replaced = torch.rand(labels.shape, generator=generator) < rate
    other = torch.randint(classes, labels.shape, generator=generator)
    return torch.where(replaced.to(labels.device), other.to(labels.device), labels)
