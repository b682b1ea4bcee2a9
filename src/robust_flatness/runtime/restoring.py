"""Restoring of a module after calls of it."""

import contextlib
from collections import OrderedDict, deque
from collections.abc import Iterator
from functools import partial
from logging import Logger
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

#: Types of containers that are restored; a subclass precedes its base class.
KINDS = OrderedDict, dict, list, set, deque


@contextlib.contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Restore the contents of a module on exit: tensors, modes, attributes and containers, also inside
    objects that it refers to. Closures and loggers are not restored."""
    kept, seen, waiting = [], {}, [model]
    while waiting:
        held = waiting.pop()
        if id(held) in seen or isinstance(held, type | ModuleType | FunctionType | Logger):
            continue
        seen[id(held)] = held
        table = next((kind for kind in KINDS if isinstance(held, kind)), None)
        if isinstance(held, Tensor) and held.layout == torch.strided:
            kept.append((partial(_put_back, held, held.requires_grad), held.detach().clone()))
        elif isinstance(held, torch.Generator):
            kept.append((held.set_state, held.get_state()))
        elif isinstance(held, np.ndarray) and held.flags.writeable:
            kept.append((partial(held.__setitem__, ...), held.copy()))
        elif table is not None:
            kept.append((partial(_refill, table, held), table(held)))
            waiting += held.values() if isinstance(held, dict) else held
        elif isinstance(held, tuple):
            waiting += held
        else:
            waiting.append(getattr(held, "__dict__", None))
    with contextlib.ExitStack() as stack:  # one that fails does not keep the others from being restored
        for restore, value in reversed(kept):
            stack.callback(restore, value)
        yield


def _put_back(tensor: Tensor, requires_grad: bool, value: Tensor) -> None:
    if not torch.equal(tensor, value):  # one with expanded dimensions cannot be written
        tensor.data.copy_(value)
    if tensor.is_leaf and tensor.requires_grad != requires_grad:
        tensor.requires_grad_(requires_grad)


def _refill(kind: type, table: Any, content: Any) -> None:
    """Give `table`, of a subclass of `kind` perhaps, its former content."""
    kind.clear(table)
    (kind.update if issubclass(kind, dict | set) else kind.extend)(table, content)
