"""Exponential moving average of the weights (Izmailov et al., UAI 2018; Gowal et al., 2020)."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import swa_utils


def averaged_weights(model: nn.Module, decay: float) -> swa_utils.AveragedModel:
    """The running average w_avg <- decay w_avg + (1 - decay) w, from the weights of `model` on.

    Call `update_parameters(model)` after every step.
    """
    average = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(decay))
    # the first call copies: the average starts at the initial weights
    average.update_parameters(model)
    return average


def recompute_statistics(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Batch norm's running statistics as means over `batches` of inputs, weights unchanged."""
    with torch.no_grad():
        swa_utils.update_bn(batches, model)
