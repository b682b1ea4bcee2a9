"""Which parameters of a network make its neighbourhood."""

import re

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase
from torch.overrides import TorchFunctionMode

from robust_flatness.errors import ConfigError
from robust_flatness.models.copying import place_of

#: Layers that normalise, torch's own.
NORMALISATIONS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm)
#: ... and others, by the name of their class.
NAMED_NORMALISATION = re.compile(
    r"(batch|layer|group|instance|rms)_?norm|^(input)?_?(normali[sz]|standardi[sz]|whiten)", re.IGNORECASE
)


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
            found.setdefault(place_of(parameter), name)
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
