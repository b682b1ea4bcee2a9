"""Batch norm's running statistics, held still where a forward pass must not count."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class RunningStatistics:
    """The batch norms of a network; `frozen` keeps their running statistics as they are.

    In training mode batch norm normalises by the batch's statistics and updates its running ones.
    The pass at adversarial weights runs inside `frozen`: what counts are the weights themselves.
    """

    def __init__(self, network: nn.Module):
        self.norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Normalise by the batch, update nothing."""
        counts = [norm.num_batches_tracked for norm in self.norms]
        saved = [count.clone() for count in counts]
        momenta = [norm.momentum for norm in self.norms]
        try:
            for norm in self.norms:
                norm.momentum = 0.0
            yield
        finally:
            for norm, momentum in zip(self.norms, momenta, strict=True):
                norm.momentum = momentum
            if counts:
                torch._foreach_copy_(counts, saved)
