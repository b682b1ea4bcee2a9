"""Measures are the same wherever they are called, and leave nothing behind."""

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
    python = random.getstate()
    numpy = sys.modules.get("numpy.random")
    numpy_state = numpy.get_state() if numpy is not None else None
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", *(["cuda"] if devices else [])):
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(torch.random.fork_rng(devices))
        if seed is not None:
            torch.manual_seed(seed)
            random.seed(seed)
            if numpy is not None:
                numpy.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            if numpy_state is not None:
                numpy.set_state(numpy_state)
