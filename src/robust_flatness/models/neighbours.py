"""Which parameters of a network make its neighbourhood."""

import re

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from robust_flatness.models.copying import memory_of

#: Layers that normalise, torch's own.
NORMALISATIONS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm)
#: ... and others, by the name of their class.
NAMED_NORMALISATION = re.compile(
    r"(batch|layer|group|instance|rms)_?norm|^(input)?_?(normali[sz]|standardi[sz]|whiten)", re.IGNORECASE
)


def perturbed_names(model: nn.Module) -> list[str]:
    """Names of the parameters that are perturbed, in the order of the model's.

    Trainable floating-point and complex parameters, weights and biases each as a layer of its own.
    Left out are the parameters of normalisation layers (batch, layer, group, instance, RMS, of the
    input), integer and frozen ones. A tensor that is used in several places counts once. If all
    parameters are frozen, as for evaluation, none counts as frozen.
    """
    of_norms = {
        id(parameter)
        for module in model.modules()
        if normalises(module)
        for parameter in module.parameters(recurse=False)
    }
    parameters = {
        name: p
        for name, p in model.named_parameters()
        if (p.is_floating_point() or p.is_complex()) and p.numel()
    }
    trainable = {name: p for name, p in parameters.items() if p.requires_grad} or parameters
    found, seen = [], set()
    for name, parameter in trainable.items():
        place = memory_of(parameter) or id(parameter)
        if id(parameter) not in of_norms and place not in seen:
            seen.add(place)
            found.append(name)
    return found


def normalises(module: nn.Module) -> bool:
    """Whether `module` is a normalisation layer, scripted ones included."""
    kind = getattr(module, "original_name", type(module).__name__)
    return isinstance(module, NORMALISATIONS) or bool(NAMED_NORMALISATION.search(kind))
