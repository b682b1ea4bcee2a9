"""Running statistics of batch norm: frozen during a forward pass, or recomputed for given weights."""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn


@contextlib.contextmanager
def frozen_statistics(network: nn.Module) -> Iterator[None]:
    """Keep the running statistics unchanged, while batch norm in training mode normalises by the batch's."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    counts, momenta = [norm.num_batches_tracked for norm in norms], [norm.momentum for norm in norms]
    saved = [count.clone() for count in counts]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        if counts:
            torch._foreach_copy_(counts, saved)


@torch.no_grad()
def recompute_statistics(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set batch norm's running statistics to means over `batches` of inputs; the weights do not change."""
    update_bn(batches, model)
