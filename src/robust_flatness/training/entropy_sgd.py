"""Entropy-SGD: gradient steps on the local entropy of the loss (Chaudhari et al., ICLR 2017)."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

DEFAULTS = {"weight_decay": 0.0, "inner_lr": 0.1, "averaging": 0.75, "noise": 1e-4, "gamma": 1e-4}


class EntropySGD(Optimizer):
    r"""Entropy-SGD (`lr`, `langevin_steps`, and settings that replace `DEFAULTS`).

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
        super().__init__(params, DEFAULTS | settings)
        self.noise_generator: torch.Generator | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:
        """Make one outer step; `closure` draws the next batch, sets the gradients, and returns the loss."""
        group = self.param_groups[0]
        decay, rate = group["weight_decay"], group["inner_lr"]
        with torch.enable_grad():
            loss = closure()
        weights = [p for p in group["params"] if p.grad is not None]
        start = [p.clone() for p in weights]
        mean = [p.clone() for p in weights]
        for _ in range(group["langevin_steps"]):
            with torch.enable_grad():
                closure()
            direction = torch._foreach_add([p.grad for p in weights], weights, alpha=decay)
            torch._foreach_add_(direction, torch._foreach_sub(start, weights), alpha=-group["gamma"])
            if group["noise"]:
                noise = [self._normal(p) for p in weights]
                torch._foreach_add_(direction, noise, alpha=group["noise"] / (0.5 * rate) ** 0.5)
            torch._foreach_add_(weights, direction, alpha=-rate)
            torch._foreach_lerp_(mean, weights, 1 - group["averaging"])
        torch._foreach_copy_(weights, start)
        direction = torch._foreach_sub(start, mean)
        torch._foreach_add_(direction, start, alpha=decay)
        torch._foreach_add_(weights, direction, alpha=-group["lr"])
        return loss

    def _normal(self, parameter: Tensor) -> Tensor:
        stream = self.noise_generator
        device = parameter.device if stream is None else stream.device
        noise = torch.randn(parameter.shape, generator=stream, dtype=parameter.dtype, device=device)
        return noise.to(parameter.device)
