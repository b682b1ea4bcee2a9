"""Which parameters of a network make its neighbourhood."""

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from robust_flatness.errors import ConfigError
from robust_flatness.models.copying import memory_of, reachable

#: Layers that normalise, torch's own.
NORMALISATIONS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm)
#: ... and others, by the name of their class.
NAMED_NORMALISATION = re.compile(
    r"(batch|layer|group|instance|rms)_?norm|^(input)?_?(normali[sz]|standardi[sz]|whiten)", re.IGNORECASE
)


#: Up to so many numbers are mean and std of the channels of an image, or a temperature, and no weights.
CONSTANTS = 4
#: Functions that normalise.
FUNCTIONS = {
    F.batch_norm, F.layer_norm, F.group_norm, F.instance_norm, F.rms_norm,
    torch.batch_norm, torch.layer_norm, torch.group_norm, torch.instance_norm, torch.rms_norm,
}  # fmt: skip


def perturbed_names(model: nn.Module) -> list[str]:
    """Names of the parameters that are perturbed, in the order of the model's.

    Trainable floating-point and complex parameters, weights and biases each as a layer of its own.
    Left out are the parameters of normalisation layers (batch, layer, group, instance, RMS, of the
    input), integer and frozen ones. A tensor that is used in several places counts once. If all
    parameters are frozen, as for evaluation, none counts as frozen.
    """
    lazy = [name for name, p in model.named_parameters() if nn.parameter.is_lazy(p)]
    if lazy:
        raise ConfigError(f"model: {lazy[0]} has no values yet; run the network once before it is measured")
    frozen = {*frozen_names(model)}
    found = {}
    for name, parameter in _of_layers(model).items():
        if name not in frozen:
            found.setdefault(_place(parameter), name)
    return [*found.values()]


def frozen_names(model: nn.Module) -> list[str]:
    """Names of the parameters that would be perturbed if they required gradients; none if none does, as for
    evaluation."""
    if not any(p.requires_grad for p in model.parameters()):
        return []
    return [name for name, p in _of_layers(model).items() if not p.requires_grad]


def _of_layers(model: nn.Module) -> dict[str, Tensor]:
    """Floating-point and complex parameters, but those of normalisations."""
    of_norms = {
        id(parameter)
        for module in model.modules()
        if normalises(module)
        for parameter in module.parameters(recurse=False)
    }
    return {
        name: p
        for name, p in model.named_parameters()
        if (p.is_floating_point() or p.is_complex()) and p.numel() and id(p) not in of_norms
    }


def held_outside(model: nn.Module) -> dict[str, Tensor]:
    """Numbers that may be weights, but that the model does not know as parameters, by where they are held:
    plain tensors, what is in Python lists and dicts, buffers called weight or bias. Left out are those of
    normalisations, and constants of few numbers."""
    held = dict(reachable(model))
    modules = [value for value in held.values() if isinstance(value, nn.Module)]
    norms = nn.ModuleList(module for module in modules if normalises(module))
    own = {n: b for n, b in model.named_buffers() if n.rpartition(".")[2] not in ("weight", "bias")}
    known = {_place(t) for t in (*model.parameters(), *own.values(), *norms.parameters(), *norms.buffers())}
    return {
        place: value
        for place, value in held.items()
        if isinstance(value, Tensor) and _may_be_weights(value) and _place(value) not in known
    }


def _may_be_weights(tensor: Tensor) -> bool:
    number = tensor.is_floating_point() or tensor.is_complex()
    return number and not tensor.is_nested and tensor.numel() > CONSTANTS


class HeldElsewhere(TorchDispatchMode):
    """While it is active, notes in `found` the tensors that functions of torch are given but that none of
    them has made and that are not `known`: what a network takes from closures, partial functions, classes,
    slots and globals.

    Parameters
    ----------
    known
        The network's own tensors, and its inputs.
    """

    def __init__(self, known: Iterable[Tensor]):
        super().__init__()
        self._kept = [*known]  # alive, or another tensor could take its memory
        self._seen = {_memory(tensor) for tensor in self._kept}
        self.found: dict[str, Tensor] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, Tensor) and _memory(value) not in self._seen:
                self._note(value)
                if _may_be_weights(value) and func is not torch.ops.aten.lift_fresh.default:  # a literal
                    index = f"{len(self.found) + 1}, " if self.found else ""
                    place = f"a tensor of shape {list(value.shape)} ({index}held outside the network)"
                    self.found[place] = value
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._note(value)
        return result

    def _note(self, tensor: Tensor) -> None:
        self._kept.append(tensor)
        self._seen.add(_memory(tensor))


def _memory(tensor: Tensor) -> int:
    """Where the numbers of a tensor and of its views lie."""
    try:
        return tensor.untyped_storage().data_ptr() or id(tensor)
    except (RuntimeError, NotImplementedError):  # sparse ones and others have no storage
        return id(tensor)


def _place(tensor: Tensor) -> Any:
    return memory_of(tensor) or id(tensor)


def normalises(module: nn.Module) -> bool:
    """Whether `module` is a normalisation layer, scripted ones included."""
    kind = getattr(module, "original_name", type(module).__name__)
    return isinstance(module, NORMALISATIONS) or bool(NAMED_NORMALISATION.search(kind))


class NormalisationParameters(TorchFunctionMode):
    """While it is active, notes in `found` the ids of parameters that scale and shift what a function of
    torch normalises, whatever layer holds them; also of those that they are computed from, if these
    require gradients."""

    def __init__(self):
        super().__init__()
        self.found: set[int] = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in FUNCTIONS:
            for value in (*args[1:], *(kwargs or {}).values()):
                if isinstance(value, Tensor):
                    self.found |= {id(value), *map(id, _leaves(value))}
        return func(*args, **(kwargs or {}))


def _leaves(tensor: Tensor) -> list[Tensor]:
    """The tensors of whose gradients that of `tensor` is made."""
    found, left, seen = [], [tensor.grad_fn], set()
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        left.extend(following for following, _ in node.next_functions)
    return found
