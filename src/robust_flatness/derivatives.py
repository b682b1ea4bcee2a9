"""Gradients of gradients, where layers have none that is right."""

import contextlib
from collections.abc import Iterator

import torch
from torch.overrides import TorchFunctionMode


@contextlib.contextmanager
def twice_differentiable() -> Iterator[None]:
    """Attention, recurrent layers and weight norm in forms that have second derivatives.

    Fused attention and cuDNN's recurrent layers have none; that of torch's fused weight norm is wrong
    (its matrix is not even symmetric, in torch 2.14).
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=False), _WeightNorm():
        yield


class _WeightNorm(TorchFunctionMode):
    """g v / ||v|| in elementary operations."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch._weight_norm:
            v, g, dim = (*args, *(kwargs or {}).values())
            return v * (g / torch.norm_except_dim(v, 2, dim))
        return func(*args, **(kwargs or {}))
