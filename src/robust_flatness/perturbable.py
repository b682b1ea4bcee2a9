"""The parameters in whose neighbourhood flatness is measured."""

import re

from torch import nn

#: Names of classes that normalise; their subclasses do, too.
NORMALISATIONS = re.compile(
    r"(batch|layer|group|instance|rms)_?norm|^(input)?_?(normali[sz]|standardi[sz]|whiten)", re.IGNORECASE
)


def perturbable_parameters(model: nn.Module) -> tuple[list[str], list[str]]:
    """Return the names of the perturbed parameters, and of those left out because they are frozen.

    All trainable floating-point parameters are perturbed, in the model's order, except those of
    normalisation layers. Each tensor is a layer of its own; tensors that share memory count once. If all
    parameters are frozen, as for evaluation, they are treated as trainable.
    """
    of_norms = {
        id(parameter)
        for module in model.modules()
        if any(NORMALISATIONS.search(kind.__name__) for kind in type(module).__mro__)
        for parameter in module.parameters(recurse=False)
    }
    some_trainable = any(p.requires_grad for p in model.parameters())
    perturbed, frozen = {}, []
    for name, p in model.named_parameters():
        if p.is_floating_point() and p.numel() and id(p) not in of_norms:
            if some_trainable and not p.requires_grad:
                frozen.append(name)
            else:
                perturbed.setdefault(p.data_ptr(), name)
    return list(perturbed.values()), frozen
