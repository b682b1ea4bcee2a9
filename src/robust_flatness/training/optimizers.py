"""Optimisers and learning rates, and what follows each step: clipping and averaging of the weights."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer, swa_utils

from robust_flatness.config import TrainingSpec
from robust_flatness.training.entropy_sgd import EntropySGD

#: Momentum at the ends and in the middle of a cycle (the defaults of PyTorch's CyclicLR).
CYCLE_MOMENTUM = (0.9, 0.8)
DROP = 0.1


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


@dataclass(frozen=True)
class Schedule:
    """Learning rate and momentum of each update; `updates` is the number of updates in an epoch.

    - `multi-step`: multiplied by 0.1 at each milestone, a fraction of the epochs, rounded to a whole epoch.
    - `constant`.
    - `cyclic`: `cycles` triangular cycles over the training, from 0 to `learning_rate` and back to 0; with
      SGD, the momentum goes from 0.9 to 0.8 and back.
    """

    spec: TrainingSpec
    updates: int

    def learning_rate(self, update: float) -> float:
        """Return the rate of update number `update`, counted from 0 over the whole training."""
        rate = self.spec.learning_rate
        if self.spec.schedule == "cyclic":
            return rate * self._height(update)
        if self.spec.schedule == "multi-step":
            epoch = update // self.updates
            drops = sum(epoch >= round(part * self.spec.epochs) for part in self.spec.milestones)
            return rate * DROP**drops
        return rate

    def momentum(self, update: float) -> float:
        """Return the momentum of update number `update`."""
        if self.spec.schedule == "cyclic" and self.spec.optimizer == "sgd":
            ends, middle = CYCLE_MOMENTUM
            return ends + (middle - ends) * self._height(update)
        return self.spec.momentum

    def apply(self, optimizer: Optimizer, update: int) -> None:
        """Set learning rate and momentum for update number `update`."""
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate(update)
            if "momentum" in group:
                group["momentum"] = self.momentum(update)

    def _height(self, update: float) -> float:
        """Return the height of the triangle: 0 at the ends of a cycle, 1 in its middle."""
        length = self.updates * self.spec.epochs / self.spec.cycles
        position = (update % length) / length
        return 1 - abs(2 * position - 1)


@torch.no_grad()
def clip_weights(parameters: list[Tensor], bound: float) -> None:
    """Clip each tensor to [-bound, bound], in place (Stutz et al., MLSys 2021). Batch norm's scale is 1 + w,
    so it stays within 1 +- bound."""
    torch._foreach_clamp_min_(parameters, -bound)
    torch._foreach_clamp_max_(parameters, bound)


def averaged_weights(model: nn.Module, decay: float) -> swa_utils.AveragedModel:
    """Return the moving average w_avg <- decay w_avg + (1 - decay) w, starting at the weights of `model`.
    Call its `update_parameters(model)` after every step (Izmailov et al., UAI 2018; Gowal et al., 2020)."""
    average = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(decay))
    average.update_parameters(model)  # the first call copies
    return average
