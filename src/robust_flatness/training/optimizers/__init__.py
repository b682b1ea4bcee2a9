"""Optimisers, one file each; the file's name is the optimiser's, and `make(spec, parameters)` makes it.

Settings that an optimiser runs without are named in its `REFUSES`.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from robust_flatness.config import TrainingSpec, kinds


def make_optimizer(spec: TrainingSpec, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """The optimiser of a training, or what is used like one; weight decay applies to every tensor."""
    return kinds.load(kinds.OPTIMIZERS, spec.optimizer).make(spec, list(parameters))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors by "<parameter's number>.<name>"; its numbers are the training's."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{key}": tensor for i, tensors in state.items() for key, tensor in tensors.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Bring the optimiser to the state that `optimizer_tensors` returned."""
    parameters = optimizer.param_groups[0]["params"]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, key = name.split(".", 1)
        parameter = parameters[int(number)]
        if tensor.shape == parameter.shape:
            # in the parameter's memory layout
            tensor = torch.empty_like(parameter, requires_grad=False).copy_(tensor)
        state.setdefault(int(number), {})[key] = tensor
    groups = optimizer.state_dict().get("param_groups")
    optimizer.load_state_dict({"state": state, "param_groups": groups})


@torch.no_grad()
def clip_weights(parameters: Iterable[Tensor], bound: float) -> None:
    """Clip each tensor to [-bound, bound], in place (Stutz et al., MLSys 2021).

    Batch norm's scale is 1 + w, so it stays within 1 +- bound.
    """
    parameters = list(parameters)
    torch._foreach_clamp_min_(parameters, -bound)
    torch._foreach_clamp_max_(parameters, bound)
