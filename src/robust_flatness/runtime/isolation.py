"""Isolation of a computation from the caller's modes and random states."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch.nn.utils import parametrize


@contextlib.contextmanager
def isolated(seed: int | None = None) -> Iterator[None]:
    """Turn gradients on, inference mode, autocast, anomaly detection and the cache of parametrizations off;
    restore the global random states of torch, Python and numpy at the end, and set them from `seed`, if
    given. Serves as a decorator, too."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with contextlib.ExitStack() as stack:
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.autograd.set_detect_anomaly(False))
        stack.callback(setattr, parametrize, "_cache_enabled", parametrize._cache_enabled)
        parametrize._cache_enabled = 0
        for kind in ("cpu", *["cuda"] * len(devices)):
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(torch.random.fork_rng(devices))
        if seed is not None:
            for seeding in (torch.manual_seed, random.seed, np.random.seed):
                seeding(seed)
        yield


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make tensors in `dtype` where none is given."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
