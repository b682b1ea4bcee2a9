"""Optimisers and learning rates, and what follows each step: clipping and averaging of the weights."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer, swa_utils

from robust_flatness.config import TrainingSpec

#: Settings of Entropy-SGD besides `lr` and `langevin_steps`.
ENTROPY = {"weight_decay": 0.0, "inner_lr": 0.1, "averaging": 0.75, "noise": 1e-4, "gamma": 1e-4}


def make_optimizer(spec: TrainingSpec, parameters: Iterable[Tensor]) -> Optimizer:
    """Return the optimiser of a training: SGD, with Nesterov's momentum if there is any, Adam or Entropy-SGD.
    Weight decay is part of the gradient, and applies to every tensor."""
    parameters, rates = list(parameters), {"lr": spec.learning_rate, "weight_decay": spec.weight_decay}
    if spec.optimizer == "adam":
        return torch.optim.Adam(parameters, fused=True, **rates)
    if spec.optimizer == "entropy-sgd":
        return EntropySGD(parameters, langevin_steps=spec.langevin_steps, **rates)
    nesterov = spec.momentum > 0
    return torch.optim.SGD(parameters, momentum=spec.momentum, nesterov=nesterov, foreach=True, **rates)


class EntropySGD(Optimizer):
    r"""Gradient steps on the local entropy of the loss (Chaudhari et al., ICLR 2017). Settings are `lr`,
    `langevin_steps`, and replacements for those of `ENTROPY`.

    One `step` of L = `langevin_steps` inner steps of stochastic gradient Langevin dynamics calls the closure
    L + 1 times, for a new batch each. The first call is at w (its loss is returned and it updates batch
    norm's statistics; its gradient is not used). Then, from w' = mu = w, L times::

        w' <- w' - eta' [ grad L(w') + decay w' - gamma (w - w') + noise / sqrt(eta' / 2) N(0, I) ]
        mu <- alpha mu + (1 - alpha) w'

    and w <- w - eta [ w - mu + decay w ]. `lr` is the outer rate eta, `inner_lr` eta', `averaging` alpha. As
    in the released code of Stutz et al., gamma is constant (the code grows it by a factor 1 + 1e-3 per step,
    "scoping", but never counts the steps), and there is no momentum.

    Noise is drawn from `noise_generator`, which the training sets every epoch, so there is no state.
    """

    def __init__(self, params: Iterable[Tensor], **settings: float):
        super().__init__(params, ENTROPY | settings)
        self.noise_generator: torch.Generator | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:
        """Make one outer step; `closure` draws the next batch, sets the gradients, and returns the loss."""
        group, stream = self.param_groups[0], self.noise_generator
        decay, rate = group["weight_decay"], group["inner_lr"]
        with torch.enable_grad():
            loss = closure()
        weights = [p for p in group["params"] if p.grad is not None]
        start, mean = [p.clone() for p in weights], [p.clone() for p in weights]
        for _ in range(group["langevin_steps"]):
            with torch.enable_grad():
                closure()
            direction = torch._foreach_add([p.grad for p in weights], weights, alpha=decay)
            torch._foreach_add_(direction, torch._foreach_sub(start, weights), alpha=-group["gamma"])
            if group["noise"]:
                noise = [
                    torch.randn(p.shape, generator=stream, dtype=p.dtype, device=stream.device).to(p.device)
                    for p in weights
                ]
                torch._foreach_add_(direction, noise, alpha=group["noise"] / (0.5 * rate) ** 0.5)
            torch._foreach_add_(weights, direction, alpha=-rate)
            torch._foreach_lerp_(mean, weights, 1 - group["averaging"])
        torch._foreach_copy_(weights, start)
        direction = torch._foreach_sub(start, mean)
        torch._foreach_add_(direction, start, alpha=decay)
        torch._foreach_add_(weights, direction, alpha=-group["lr"])
        return loss


@dataclass(frozen=True)
class Schedule:
    """Learning rate and momentum of each update (`updates` an epoch), by the schedules of `TrainingSpec`.
    Milestones are rounded to whole epochs; in cycles, the momentum of SGD goes from 0.9 to 0.8 and back while
    the rate rises and falls (the defaults of PyTorch's CyclicLR)."""

    spec: TrainingSpec
    updates: int

    def learning_rate(self, update: int) -> float:
        """Return the rate of an update, counted from 0 over the whole training."""
        rate = self.spec.learning_rate
        if self.spec.schedule == "cyclic":
            return rate * self._height(update)
        if self.spec.schedule == "multi-step":
            epoch = update // self.updates
            drops = sum(epoch >= round(part * self.spec.epochs) for part in self.spec.milestones)
            return rate * 0.1**drops
        return rate

    def apply(self, optimizer: Optimizer, update: int) -> None:
        """Set learning rate and momentum for an update."""
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate(update)
            if "momentum" in group and self.spec.schedule == "cyclic":
                group["momentum"] = 0.9 + (0.8 - 0.9) * self._height(update)

    def _height(self, update: int) -> float:
        """Return the height of the triangle: 0 at the ends of a cycle, 1 in its middle."""
        length = self.updates * self.spec.epochs / self.spec.cycles
        position = (update % length) / length
        return 1 - abs(2 * position - 1)


@torch.no_grad()
def clip(tensors: list[Tensor], bound: float) -> None:
    """Clip each tensor to [-bound, bound], in place. Of weights (Stutz et al., MLSys 2021), this keeps the
    scale of batch norms, which is 1 + w, within 1 +- bound."""
    torch._foreach_clamp_min_(tensors, -bound)
    torch._foreach_clamp_max_(tensors, bound)


def averaged_weights(model: nn.Module, decay: float) -> swa_utils.AveragedModel:
    """Return the moving average w_avg <- decay w_avg + (1 - decay) w, starting at the weights of `model`.
    Call its `update_parameters(model)` after every step (Izmailov et al., UAI 2018; Gowal et al., 2020)."""
    average = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(decay))
    average.update_parameters(model)  # the first call copies
    return average
