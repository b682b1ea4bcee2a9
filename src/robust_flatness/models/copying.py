"""Frozen evaluation copies of anyone's module; the module itself is left as it is."""

import contextlib
import copy
import re
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

from robust_flatness.errors import ConfigError
from robust_flatness.models.layers import SafeConv2d, is_unsafe


def unwrapped(model: nn.Module) -> nn.Module:
    """The module itself where `torch.compile` or a data-parallel wrapper holds it: compiling for a few calls
    does not pay, and a measure runs on one device."""
    if type(model).__name__ == "OptimizedModule":
        return unwrapped(model._orig_mod)
    hooks = model._forward_hooks or model._forward_pre_hooks
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel) and not hooks:
        return unwrapped(model.module)
    return model


@torch.inference_mode(False)
@torch.no_grad()
def evaluation_copy(model: nn.Module) -> nn.Module:
    """A deep copy of `model` in evaluation mode with frozen parameters and no gradients.

    What forward passes have left in the module (features, computed weights) is copied as it is,
    without its graph. Parameters that share memory share it in the copy as well.

    Raises
    ------
    ConfigError
        If lazy layers have not been initialised.
    Exception
        Whatever copying one of the module's attributes raises.
    """
    model = unwrapped(model)
    lazy = [name for name, tensor in named_tensors(model).items() if is_lazy(tensor)]
    if lazy:
        raise ConfigError(f"model: {lazy[0]} is not initialised; call the model once before it is measured")
    try:
        network = copy.deepcopy(model)
    except RuntimeError:  # "Only Tensors created explicitly by the user ... support the deepcopy protocol"
        network = copy.deepcopy(model, _without_graphs(model))
    _share_memory(model, network)
    network.eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    for module in network.modules():
        if type(module) is nn.Conv2d and is_unsafe(module):
            module.__class__ = SafeConv2d
    return network


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; one that is used in several places has its first name."""
    return dict((*module.named_parameters(), *module.named_buffers()))


def _without_graphs(model: nn.Module) -> dict[int, Tensor]:
    """For `copy.deepcopy`: copies of the tensors with a graph that the modules' attributes hold."""
    held = (value for _, value in reachable(model) if isinstance(value, Tensor))
    return {id(tensor): tensor.detach().clone() for tensor in held if not tensor.is_leaf}


def reachable(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """What the modules and their attributes hold, in lists, dicts and objects of whatever kind: each value
    once, and where."""
    left, seen = [(name, module) for name, module in model.named_modules()][::-1], set()
    while left:
        place, value = left.pop()
        if id(value) in seen or isinstance(value, type | ModuleType | FunctionType | MethodType):
            continue
        seen.add(id(value))
        yield re.sub(r"(^|\.)_(modules|parameters|buffers)(?=\.)", "", place).lstrip("."), value
        if isinstance(value, dict):
            left += [(f"{place}.{key}", part) for key, part in value.items()]
        elif isinstance(value, list | tuple | set | frozenset):
            left += [(f"{place}[{index}]", part) for index, part in enumerate(value)]
        elif hasattr(value, "__dict__") and not isinstance(value, Tensor):
            left += [(f"{place}.{name}", part) for name, part in vars(value).items()]


def _share_memory(model: nn.Module, network: nn.Module) -> None:
    """Let parameters of the copy `network` share memory where those of `model` do."""
    copies = dict(network.named_parameters())
    first: dict[tuple, Tensor] = {}
    for name, parameter in model.named_parameters():
        key = memory_of(parameter)
        if key is None:
            continue
        if key in first:
            source = first[key]
            copies[name].data = source.as_strided(
                parameter.shape, parameter.stride(), source.storage_offset()
            )
        else:
            first[key] = copies[name].data


def memory_of(tensor: Tensor) -> tuple | None:
    """Where the numbers of a dense tensor lie; None for others."""
    if tensor.layout != torch.strided or tensor.numel() == 0 or tensor.device.type == "meta":
        return None
    return tensor.device, tensor.data_ptr(), tensor.numel(), tensor.dtype


class Borrowed:
    """The function of the caller's own module at tensors of ours, for modules that no copy equals.

    Each call puts the tensors in the places of the module's own (`torch.func.functional_call`), with the
    module in evaluation mode, and then restores the attributes of all its layers.
    """

    def __init__(self, model: nn.Module):
        self._model = model
        with torch.inference_mode(False):
            self.tensors = {}
            first: dict[tuple, Tensor] = {}
            for name, tensor in named_tensors(model).items():
                clone = tensor.detach().clone()
                self.tensors[name] = first.setdefault(memory_of(tensor) or (name,), clone)
                self.tensors[name] = self.tensors[name].as_strided(tensor.shape, clone.stride())

    def __call__(self, x: Tensor) -> Tensor:
        return self.at({}, x)

    def at(self, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """With `weights` in place of some of the tensors."""
        with as_it_was(self._model):
            return functional_call(self._model.eval(), {**self.tensors, **weights}, (x,))


@contextlib.contextmanager
def as_it_was(model: nn.Module) -> Iterator[None]:
    """Restore the modes and attributes of all layers of `model` at the end."""
    saved = []
    for module in model.modules():
        tables = [vars(module).get(name) for name in ("_parameters", "_buffers", "_modules")]
        contents = [(table, dict(table)) for table in tables if isinstance(table, dict)]  # not of scripts
        saved.append((module, module.training, dict(vars(module)), contents))
    try:
        yield
    finally:
        for module, training, attributes, contents in saved:
            vars(module).clear()
            vars(module).update(attributes)
            if module.training is not training:  # scripts keep it elsewhere
                module.training = training
            for table, content in contents:
                table.clear()
                table.update(content)


def outcome(
    function: Callable[[Tensor], Tensor], x: Tensor, with_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Logits, and the gradient by the inputs of a weighted sum of them (None where there is none)."""
    x = x.detach().clone().requires_grad_(with_gradient)
    gradient = None
    with torch.set_grad_enabled(with_gradient):
        logits = function(x.clone())
        if logits.requires_grad:
            weights = torch.linspace(1, 2, logits.shape[-1], dtype=logits.dtype, device=logits.device)
            (gradient,) = torch.autograd.grad((logits * weights).sum(), x, allow_unused=True)
    return logits.detach(), gradient


@torch.no_grad()
def outcome_at(model: nn.Module, tensors: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor | None]:
    """The outcome of the caller's own module in evaluation mode with `tensors` written into its own.

    This is what a measure at other weights means; the module gets its numbers back, bit for bit. There is no
    gradient through tensors that were made in inference mode.
    """
    own = {name: tensor for name, tensor in named_tensors(model).items() if name in tensors}
    saved = {name: tensor.detach().clone() for name, tensor in own.items()}
    with as_it_was(model):
        try:
            for name, tensor in own.items():
                tensor.data.copy_(tensors[name])
            with_gradient = not any(tensor.is_inference() for tensor in own.values())
            return outcome(model.eval(), x, with_gradient)
        finally:
            for name, tensor in own.items():
                tensor.data.copy_(saved[name])
