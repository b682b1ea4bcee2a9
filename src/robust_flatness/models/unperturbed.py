"""What looks like weights of a network but is not perturbed, to be told."""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from robust_flatness.models.agreement import equal
from robust_flatness.models.copying import place_of, reachable
from robust_flatness.models.neighbours import frozen_names, normalises
from robust_flatness.runtime.isolation import isolated

#: Up to so many numbers are mean and std of the channels of an image, or a temperature, and no weights.
CONSTANTS = 4
Run = Callable[[Tensor], Tensor]
Held = Tensor | np.ndarray


def what_stays(
    held: tuple[nn.Module, nn.Module | None],
    own: Mapping[str, Tensor],
    perturbed: Collection[str],
    normalising: Collection[int],
    run: Run,
    x: Tensor | None,
) -> Iterator[str]:
    """In words, what weights there are, or may be, that stay as they are, and why.

    Parameters
    ----------
    held
        The network, and the copy of it that is run, if there is one.
    own
        The tensors that the measures exchange, by name.
    normalising
        Ids of tensors that scale and shift what a function normalises.
    run, x
        Logits by inputs, and inputs on which to try whether they depend on a tensor; None where that need
        not be asked, since the network is one of the kit.
    """
    model, copied = held
    frozen = [name for name in frozen_names(model) if id(own[name]) not in normalising]
    large = any(own[name].numel() > CONSTANTS for name in frozen)
    if large and _used({"": [own[name] for name in frozen]}, run, x) != []:
        yield (
            f"{_are(frozen, 'parameter')} frozen (requires_grad=False) and not perturbed, beside "
            f"{len(perturbed)} that {'are' if len(perturbed) != 1 else 'is'}: {_some(frozen)}; to perturb "
            "these too, freeze all or none"
        )
    outside = {n: [t] for n, t in _held_outside(copied or model).items() if id(t) not in normalising}
    if x is not None:
        outside |= _held_elsewhere([one for one in held if one is not None], [*own.values()], run, x)
    if used := _used(outside, run, x):
        count = sum(len(outside[name]) for name in used)
        yield (
            f"{count} tensor{'s' * (count > 1)} that the logits depend on "
            f"{'are no parameters' if count > 1 else 'is no parameter'} and not perturbed: {_some(used)}; "
            "where they are weights, register them (nn.Parameter, nn.ParameterList, nn.ModuleList, "
            "nn.ModuleDict)"
        )


def _used(groups: Mapping[str, Sequence[Held]], run: Run, x: Tensor | None) -> list[str] | None:
    """The names of those groups of tensors and arrays with which the logits change; None where that cannot be
    told."""

    def logits() -> Tensor:
        with isolated(seed=0), torch.no_grad():
            return run(x)

    if not groups:
        return []
    if x is None or not equal(logits(), expected := logits()):
        return None
    g, found = torch.Generator().manual_seed(0), []
    for name, group in groups.items():
        try:
            with contextlib.ExitStack() as moved:
                for held in group:
                    moved.enter_context(_otherwise(held, 0.8 + 0.4 * torch.rand(held.shape, generator=g)))
                if not equal(logits(), expected):
                    found.append(name)
        except Exception:  # whatever a network raises where one of its constants is another
            found.append(name)
    return found


@contextlib.contextmanager
def _otherwise(held: Held, factors: Tensor) -> Iterator[None]:
    """For a moment, the numbers are others. An array's are where the network may have views of them."""
    kept = held.data if isinstance(held, Tensor) else held.copy()
    try:
        if isinstance(held, Tensor):
            held.data = kept * factors.to(kept)
        else:
            with np.errstate(all="ignore"):
                held *= factors.numpy().astype(held.dtype)
        yield
    finally:
        if isinstance(held, Tensor):
            held.data = kept
        else:
            held[...] = kept


def _held_elsewhere(
    modules: Sequence[nn.Module], own: Sequence[Tensor], run: Run, x: Tensor
) -> dict[str, list[Tensor]]:
    """What `run` takes that none of the modules holds, in groups of one shape."""
    x = x.clone()
    tensors = [value for module in modules for _, value in reachable(module) if isinstance(value, Tensor)]
    watched = _HeldElsewhere([*tensors, *own, x])
    # a kind of tensor that cannot be watched ends it: what has been seen counts
    with isolated(seed=0), torch.no_grad(), contextlib.suppress(Exception), watched:
        run(x)
    groups = groupby(sorted(watched.found, key=lambda tensor: tensor.shape), lambda tensor: tensor.shape)
    return {f"one of shape {list(shape)} held by no layer": [*group] for shape, group in groups}


def _held_outside(model: nn.Module) -> dict[str, Held]:
    """Numbers that may be weights, but that the model does not know as parameters, by where they are held:
    plain tensors and arrays, what is in Python lists and dicts, buffers called weight or bias. Left out are
    those of normalisations, and constants of few numbers."""
    held = dict(reachable(model))
    modules = [value for value in held.values() if isinstance(value, nn.Module)]
    norms = nn.ModuleList(module for module in modules if normalises(module))
    own = {n: b for n, b in model.named_buffers() if n.rpartition(".")[2] not in ("weight", "bias")}
    known = {place_of(t) for t in (*model.parameters(), *own.values(), *norms.parameters(), *norms.buffers())}
    return {
        place: value
        for place, value in held.items()
        if isinstance(value, Held)
        and _may_be_weights(value)
        and (isinstance(value, np.ndarray) or place_of(value) not in known)
    }


def _may_be_weights(held: Held) -> bool:
    if isinstance(held, np.ndarray):
        of_a_file = isinstance(held, np.memmap)  # which would be written to
        return held.dtype.kind in "fc" and held.flags.writeable and not of_a_file and held.size > CONSTANTS
    number = held.is_floating_point() or held.is_complex()
    return number and not held.is_nested and held.numel() > CONSTANTS


class _HeldElsewhere(TorchDispatchMode):
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
        self.found: list[Tensor] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, Tensor) and _memory(value) not in self._seen:
                self._note(value)
                if _may_be_weights(value) and func is not torch.ops.aten.lift_fresh.default:  # a literal
                    self.found.append(value)
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


def _are(names: Sequence[str], noun: str) -> str:
    return f"1 {noun} is" if len(names) == 1 else f"{len(names)} {noun}s are"


def _some(names: Sequence[str]) -> str:
    return ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])])
