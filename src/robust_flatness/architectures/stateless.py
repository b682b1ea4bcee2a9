"""A module as a function of its tensors."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from robust_flatness.architectures.layers import inside_transform


def followers(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, torch.Size, tuple[int, ...]]]:
    """Return the tensors that share all memory with an earlier one: name -> its name, own shape, strides."""
    leaders: dict[tuple, str] = {}
    found = {}
    for name, tensor in tensors.items():
        leader = leaders.setdefault((tensor.data_ptr(), tensor.numel(), tensor.dtype), name)
        if leader != name and tensor.numel():
            found[name] = leader, tensor.shape, tensor.stride()
    return found


class Stateless:
    """`module` as a function of tensors and inputs, as `torch.func.functional_call`, but faster.

    `own` holds its parameters and buffers by the first name under which they are registered. Tensors given
    stay in the module until the next call with others, since checkpointed layers read them again in the
    backward pass; within transforms of `torch.func` they are taken out at once.
    """

    def __init__(self, module: nn.Module):
        self.module, self._current = module, {}
        self.own: dict[str, Tensor] = {}
        # the dictionaries (`_parameters`, `_buffers`) and keys under which a tensor is registered
        self._places: dict[str, list[tuple[dict[str, Tensor | None], str]]] = {}
        names: dict[int, str] = {}
        for prefix, child in module.named_modules():
            for table in (child._parameters, child._buffers):
                for key, tensor in table.items():
                    if tensor is not None:
                        name = names.setdefault(id(tensor), f"{prefix}.{key}" if prefix else key)
                        self._places.setdefault(name, []).append((table, key))
                        self.own[name] = tensor

    def __call__(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Return the output for `x` with `tensors` in place of the module's own of these names."""
        self.put(tensors)
        try:
            return self.module(x)
        finally:
            if inside_transform():
                self.put({})

    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Put `tensors` into the module, and its own back in place of all others."""
        if tensors is not self._current:
            for name, tensor in ({n: self.own[n] for n in self._current} | dict(tensors)).items():
                for table, key in self._places[name]:
                    table[key] = tensor
            self._current = tensors
