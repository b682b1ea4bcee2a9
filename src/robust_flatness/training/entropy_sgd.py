"""Entropy-SGD: gradient steps on the local entropy of the loss (Chaudhari et al., ICLR 2017)."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer


class EntropySGD(Optimizer):
    r"""Entropy-SGD with `langevin_steps` = L inner steps of stochastic gradient Langevin dynamics.

    One `step` calls the closure L + 1 times, so it uses L + 1 batches. The first call is at w (its
    loss is returned and it updates batch norm's statistics; its gradient is not used). Then, from
    w' = mu = w, L times with a new batch each::

        w' <- w' - eta' [ grad L(w') + decay w' - gamma (w - w') + noise / sqrt(eta' / 2) N(0, I) ]
        mu <- alpha mu + (1 - alpha) w'

    and w <- w - eta [ w - mu + decay w ]. `lr` is the outer rate eta, `inner_lr` eta', `averaging` alpha. As
    in the released code of Stutz et al., gamma is constant (the code grows it by a factor 1 + 1e-3 per step,
    "scoping", but never counts the steps), and there is no momentum.

    Noise is drawn from `noise_generator`, on its device. The training sets a new generator every epoch, so
    the optimiser has no state.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        langevin_steps: int,
        weight_decay: float = 0.0,
        inner_lr: float = 0.1,
        averaging: float = 0.75,
        noise: float = 1e-4,
        gamma: float = 1e-4,
    ):
        defaults = {
            "lr": lr, "langevin_steps": langevin_steps, "weight_decay": weight_decay,
            "inner_lr": inner_lr, "averaging": averaging, "noise": noise, "gamma": gamma,
        }  # fmt: skip
        super().__init__(params, defaults)
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
