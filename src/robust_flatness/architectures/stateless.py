"""A module as a function of its tensors."""

from collections.abc import Mapping

from torch import Tensor, nn

#: The dictionaries (`_parameters` or `_buffers`) and keys under which a tensor is registered.
Places = list[tuple[dict[str, Tensor | None], str]]


def tensor_places(module: nn.Module) -> dict[str, Places]:
    """Return where `module` holds each parameter and buffer, by name; a tensor that is registered several
    times has its first name and all its places."""
    names: dict[int, str] = {}
    places: dict[str, Places] = {}
    for prefix, child in module.named_modules():
        for table in (child._parameters, child._buffers):
            for key, tensor in table.items():
                if tensor is not None:
                    name = names.setdefault(id(tensor), f"{prefix}.{key}" if prefix else key)
                    places.setdefault(name, []).append((table, key))
    return places


class Stateless:
    """`module` as a function of tensors and inputs, as `torch.func.functional_call`, with the places of the
    tensors looked up once instead of at every call."""

    def __init__(self, module: nn.Module):
        self.module, self.places = module, tensor_places(module)

    def __call__(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """The output for `x` with `tensors` in place of the module's own of these names."""
        saved = [(table, key, table[key]) for name in tensors for table, key in self.places[name]]
        try:
            for name, tensor in tensors.items():
                for table, key in self.places[name]:
                    table[key] = tensor
            return self.module(x)
        finally:
            for table, key, tensor in saved:
                table[key] = tensor
