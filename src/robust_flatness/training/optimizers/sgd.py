"""Stochastic gradient descent with momentum."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from robust_flatness.config import TrainingSpec


class SGD:
    """SGD with Nesterov momentum m and weight decay: g <- grad + decay w; v <- m v + g;
    w <- w - lr (g + m v).

    The first step sets v = g. Computes what `torch.optim.SGD(nesterov=True)` does and is used like
    it; but torch's optimisers import the compiler's front end: 1.4 s and 150 MB in each of the many
    short jobs that are not forked from one that has it, and as much before the first that is.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float, weight_decay: float):
        group = {"params": list(params), "lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        self.param_groups = [group]
        self._velocity: list[Tensor] = []

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients."""
        for parameter in self.param_groups[0]["params"]:
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One update; `closure` sets the gradients and returns the loss, which is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        group = self.param_groups[0]
        weights, momentum = group["params"], group["momentum"]
        direction = torch._foreach_add([w.grad for w in weights], weights, alpha=group["weight_decay"])
        if momentum:
            if self._velocity:
                torch._foreach_mul_(self._velocity, momentum)
                torch._foreach_add_(self._velocity, direction)
            else:
                self._velocity = [d.clone() for d in direction]
            torch._foreach_add_(direction, self._velocity, alpha=momentum)
        torch._foreach_add_(weights, direction, alpha=-group["lr"])
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The momentum's buffers, in the form of torch's optimisers."""
        return {"state": {i: {"momentum_buffer": v} for i, v in enumerate(self._velocity)}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`; rates are set by the training."""
        self._velocity = [state["state"][i]["momentum_buffer"] for i in sorted(state["state"])]


def make(spec: TrainingSpec, parameters: Iterable[Tensor]) -> SGD:
    """SGD with Nesterov momentum."""
    return SGD(parameters, spec.learning_rate, spec.momentum, spec.weight_decay)
