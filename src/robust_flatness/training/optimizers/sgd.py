"""Stochastic gradient descent with momentum, as torch has it."""

from collections.abc import Iterable

import torch
from torch import Tensor

from robust_flatness.config import TrainingSpec


def make(spec: TrainingSpec, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum m and weight decay: g <- grad + decay w; v <- m v + g (at first v = g);
    w <- w - lr (g + m v)."""
    return torch.optim.SGD(
        parameters,
        lr=spec.learning_rate,
        momentum=spec.momentum,
        weight_decay=spec.weight_decay,
        nesterov=spec.momentum > 0,
        foreach=True,
    )
