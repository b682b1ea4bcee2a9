"""Adam (Kingma and Ba, ICLR 2015), as torch has it."""

from collections.abc import Iterable

import torch
from torch import Tensor

from robust_flatness.config import TrainingSpec


def make(spec: TrainingSpec, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """Adam with weight decay added to the gradient."""
    return torch.optim.Adam(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True)
