"""Isolation of a computation from the caller's modes and random states."""

import contextlib
import random
import sys
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def isolated(seed: int | None = None) -> Iterator[None]:
    """Turn gradients on, inference mode and autocast off; restore the global random states of torch, Python
    and numpy at the end, and set them from `seed`, if given. Serves as a decorator, too."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    numpy = sys.modules.get("numpy.random")
    restore = [(random.setstate, random.getstate())]
    restore += [(numpy.set_state, numpy.get_state())] if numpy else []
    with contextlib.ExitStack() as stack:
        for set_state, state in restore:
            stack.callback(set_state, state)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", *["cuda"] * len(devices)):
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(torch.random.fork_rng(devices))
        if seed is not None:
            for seeding in (torch.manual_seed, random.seed, *([numpy.seed] if numpy else [])):
                seeding(seed)
        yield
