"""Optimisers of the weights, and what follows each of their steps: clipping and averaging."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer, swa_utils

from robust_flatness.config import TrainingSpec
from robust_flatness.training.entropy_sgd import EntropySGD


def sgd(spec: TrainingSpec, parameters: list[Tensor]) -> Optimizer:
    """SGD with Nesterov momentum m: g <- grad + decay w; v <- m v + g; w <- w - lr (g + m v)."""
    settings = {"lr": spec.learning_rate, "momentum": spec.momentum, "weight_decay": spec.weight_decay}
    return torch.optim.SGD(parameters, nesterov=spec.momentum > 0, foreach=True, **settings)


def adam(spec: TrainingSpec, parameters: list[Tensor]) -> Optimizer:
    """Adam (Kingma and Ba, ICLR 2015), with weight decay added to the gradient."""
    return torch.optim.Adam(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True)


def entropy_sgd(spec: TrainingSpec, parameters: list[Tensor]) -> Optimizer:
    """Entropy-SGD with the inner steps of the training."""
    rates = {"lr": spec.learning_rate, "weight_decay": spec.weight_decay}
    return EntropySGD(parameters, langevin_steps=spec.langevin_steps, **rates)


#: By the names of `robust_flatness.config.catalogue`.
MAKERS = {"adam": adam, "entropy-sgd": entropy_sgd, "sgd": sgd}


def make_optimizer(spec: TrainingSpec, parameters: Iterable[Tensor]) -> Optimizer:
    """Return the optimiser of a training; weight decay applies to every tensor."""
    return MAKERS[spec.optimizer](spec, list(parameters))


@torch.no_grad()
def clip_weights(parameters: list[Tensor], bound: float) -> None:
    """Clip each tensor to [-bound, bound], in place (Stutz et al., MLSys 2021).

    Batch norm's scale is 1 + w, so it stays within 1 +- bound.
    """
    torch._foreach_clamp_min_(parameters, -bound)
    torch._foreach_clamp_max_(parameters, bound)


def averaged_weights(model: nn.Module, decay: float) -> swa_utils.AveragedModel:
    """Return the moving average w_avg <- decay w_avg + (1 - decay) w, starting at the weights of `model`.

    Call its `update_parameters(model)` after every step (Izmailov et al., UAI 2018; Gowal et al., 2020).
    """
    average = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(decay))
    average.update_parameters(model)  # the first call copies
    return average
