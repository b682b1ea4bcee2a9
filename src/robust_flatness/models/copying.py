"""Frozen evaluation copies of anyone's module; the module itself is left as it is."""

import contextlib
import copy
import re
from collections.abc import Callable, Collection, Iterator, Mapping
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
    without its graph.

    Raises
    ------
    ConfigError
        If lazy layers have not been initialised.
    Exception
        Whatever copying one of the module's attributes raises; `NoCopyError` if parameters share memory,
        of which the copies would be parameters of their own, or if the copy keeps parts of the module.
    """
    model = unwrapped(model)
    lazy = [name for name, tensor in named_tensors(model).items() if is_lazy(tensor)]
    if lazy:
        raise ConfigError(f"model: {lazy[0]} is not initialised; call the model once before it is measured")
    if any(len(names) > 1 for names in at_one_place(dict(model.named_parameters()))):
        raise NoCopyError("parameters share memory")
    try:
        network = copy.deepcopy(model)
    except RuntimeError:  # "Only Tensors created explicitly by the user ... support the deepcopy protocol"
        network = copy.deepcopy(model, _without_graphs(model))
    if _parts(model) & _parts(network):
        raise NoCopyError("the copy holds modules or tensors of the original")
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


class NoCopyError(Exception):
    """A copy of a module would not be one."""


def _parts(model: nn.Module) -> set:
    """What tells the modules and tensors of `model` from those of others."""
    return {place_of(tensor) for tensor in named_tensors(model).values()} | {
        id(module) for module in model.modules()
    }


def at_one_place(tensors: Mapping[str, Tensor]) -> list[list[str]]:
    """The names of `tensors`, those that share their memory together."""
    found: dict[Any, list[str]] = {}
    for name, tensor in tensors.items():
        found.setdefault(place_of(tensor), []).append(name)
    return [*found.values()]


def memory_of(tensor: Tensor) -> tuple | None:
    """Where the numbers of a dense tensor lie; None for others."""
    if tensor.layout != torch.strided or tensor.numel() == 0 or tensor.device.type == "meta":
        return None
    return tensor.device, tensor.data_ptr(), tensor.numel(), tensor.dtype


def place_of(tensor: Tensor) -> Any:
    """What tells a tensor from all that do not share its memory."""
    return memory_of(tensor) or id(tensor)


class Borrowed:
    """The function of the caller's own module at tensors of ours, for modules that no copy equals.

    Each call puts the tensors in the places of the module's own (`torch.func.functional_call`), with the
    module in evaluation mode, and then restores the attributes of all its layers. Parameters that share
    their memory are views of one of them, of one in `leaders` where it is there.
    """

    def __init__(self, model: nn.Module, leaders: Collection[str] = ()):
        self._model = model
        self._followers: dict[str, tuple[str, Tensor]] = {}
        own = named_tensors(model)
        with torch.inference_mode(False):
            self.tensors = {name: tensor.detach().clone() for name, tensor in own.items()}
            for names in at_one_place(own):
                leader = next((name for name in names if name in leaders), names[0])
                for name in names:
                    if name != leader:
                        self._followers[name] = leader, own[name]
                        self.tensors[name] = self._view(self.tensors, name)

    def __call__(self, x: Tensor) -> Tensor:
        return self.at({}, x)

    def at(self, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """With `weights` in place of some of the tensors."""
        values = {**self.tensors, **weights}
        values |= {name: self._view(values, name) for name in self._followers}
        with as_it_was(self._model):
            return functional_call(self._model.eval(), values, (x,))

    def _view(self, values: Mapping[str, Tensor], name: str) -> Tensor:
        """The numbers of the one that `name` shares its memory with, in its own shape."""
        leader, like = self._followers[name]
        return values[leader].as_strided(like.shape, like.stride())


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
