"""Checks of a user's model on two images, before anything is measured.

Whatever the model's code raises becomes one `ConfigError` that names the stage. The model does not change.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from robust_flatness.architectures.layers import SafeConv2d, channels_last, graph_nodes
from robust_flatness.architectures.stateless import Stateless, followers
from robust_flatness.errors import ConfigError, warn
from robust_flatness.inputs import checked_logits, warn_of_probabilities
from robust_flatness.runtime.isolation import isolated
from robust_flatness.runtime.restoring import restored

#: Relative tolerance for equal gradients: memory layouts round differently, which can flip ReLUs near 0.
GRADIENT_TOLERANCE = 0.05
NORMALISING_FUNCTIONS = {
    F.batch_norm, F.layer_norm, F.group_norm, F.instance_norm, F.rms_norm,
    torch.batch_norm, torch.layer_norm, torch.group_norm, torch.instance_norm, torch.rms_norm,
}  # fmt: skip


@contextlib.contextmanager
def user_code(name: str, where: str = "model") -> Iterator[None]:
    """Turn whatever a user's code raises in the block into a `ConfigError` that names the stage."""
    try:
        yield
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{where}: {name} failed: {type(error).__name__}: {error}") from error


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside `torch.compile` and data-parallel wrappers: compiling for a few calls does not
    pay, and a measure runs on one device."""
    if type(model).__name__ == "OptimizedModule":
        return unwrapped(model._orig_mod)
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return unwrapped(model.module)
    return model


def evaluation_copy(model: nn.Module) -> nn.Module:
    """Return a deep copy of `model` in evaluation mode with frozen parameters and no gradients. Tensors with
    a graph that modules hold (weights computed by hooks, kept activations) are copied without it. Raises
    `ConfigError` if the model has tensors that are not supported, or cannot be copied."""
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model: {type(model).__name__} given; expected a torch.nn.Module")
    tensors = [*model.parameters(), *model.buffers()]
    scripted = any(isinstance(module, torch.jit.ScriptModule) for module in model.modules())
    if scripted or any(is_lazy(t) or t.layout != torch.strided or t.is_complex() for t in tensors):
        raise ConfigError("model: it is scripted, or has complex, sparse or uninitialised tensors")
    if any(p.numel() * p.element_size() > p.untyped_storage().nbytes() for p in model.parameters()):
        raise ConfigError("model: it has expanded parameters, whose elements share memory; clone() them")
    held = tree_leaves([vars(module) for module in model.modules()])
    activations = {id(t): t.detach().clone() for t in held if isinstance(t, Tensor) and not t.is_leaf}
    with user_code("deep copy"):
        network = copy.deepcopy(model, activations)
    copied = [*network.modules(), *network.parameters(), *network.buffers()]
    if {id(part) for part in (*model.modules(), *tensors)} & {id(part) for part in copied}:
        raise ConfigError("model: its deep copy shares modules or tensors with it; it cannot be measured")
    with user_code("evaluation mode"):
        network.eval()
    if dict(network.named_parameters()).keys() != dict(model.named_parameters()).keys():
        raise ConfigError("model: eval() replaces its parameters; call it first")
    network.requires_grad_(False).zero_grad()
    for module in network.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = SafeConv2d
    return network


def try_loss(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, y: Tensor) -> None:
    """Try a user's loss on the logits of two images; raise `ConfigError` unless it returns finite losses [n],
    each of its own example alone, with gradients, and leaves its arguments as they are."""
    name = getattr(loss, "__name__", type(loss).__name__)
    logits = logits.detach().requires_grad_(True)
    given, labels = logits * 1, y.clone()
    with torch.enable_grad(), user_code(f"{name}(logits, labels)", "loss"):
        losses, alone = loss(given, labels), loss(logits[:1] * 1, y[:1].clone())
    if not torch.equal(given, logits) or not torch.equal(labels, y):
        raise ConfigError(f"loss: {name} changes its logits or labels; let it change copies")
    per_example = isinstance(losses, Tensor) and losses.shape == y.shape
    if not per_example or not losses.requires_grad or not losses.isfinite().all():
        expected = f"finite, differentiable losses of shape {tuple(y.shape)}"
        raise ConfigError(f"loss: {name} returned {losses!r:.200}; expected {expected}")
    with user_code(f"gradient of {name}", "loss"):
        torch.autograd.grad(losses.sum(), logits)
    if not _equal(alone.detach(), losses[:1].detach()):
        raise ConfigError(f"loss: {name} returned another loss for an example alone than in a batch")


class Trial(NamedTuple):
    """Properties of a network, as seen on two images.

    Logits are [n, `classes`]. `bytes_per_example` is the size of the largest activation of one example (None
    on other devices than the CPU), `channels_last` the layout of images and convolutions. `unused` parameters
    get no gradient; those in `normalising` are arguments of normalising functions. The logits of an example
    are `independent` of the other one.
    """

    classes: int
    bytes_per_example: int | None
    channels_last: bool = False
    unused: frozenset[str] = frozenset()
    normalising: frozenset[str] = frozenset()
    independent: bool = False


class Outcome(NamedTuple):
    """Logits, and the input gradient of a weighted sum of them (zeros if there is none)."""

    logits: Tensor
    gradient: Tensor

    def agrees(self, expected: "Outcome") -> bool:
        """Return whether logits are equal up to rounding and gradients within 5 %; NaN equals NaN."""
        found, wanted = self.gradient.nan_to_num(), expected.gradient.nan_to_num()
        close = (found - wanted).norm() <= GRADIENT_TOLERANCE * wanted.norm()
        close &= torch.equal(self.gradient.isnan(), expected.gradient.isnan())
        return bool(close) and _equal(self.logits, expected.logits)


def try_model(original: nn.Module, function: Stateless, names: Sequence[str], x: Tensor) -> Trial:
    """Try `function`, a copy of `original`, on `x`, with gradients of the parameters `names`; convert it to
    channels-last if outcomes stay. Raises `ConfigError` if a stage fails or the copy differs."""
    run, modes, independent = partial(function, {}), [(m, m.training) for m in original.modules()], False
    with restored(original):
        with user_code("evaluation mode"):
            original.eval()
        expected = outcome(run, x)
        unused, normalising = _weight_gradients(function, names, x)
        again, single = outcome(run, x).logits, outcome(run, x[:1]).logits
        repeatable = _equal(again, expected.logits)
        if not repeatable:
            warn("model: it keeps state, or a random generator; the results depend on the order of calls")
        elif not _equal(outcome(run, x, seed=1).logits, expected.logits):
            warn("model: it is random, equal inputs give different logits; the results hold for one draw")
        else:
            independent = check_independent(expected.logits, single)
        if repeatable:
            _check_copy(original, function, x, expected)
        for module, training in modes:
            module.training = training
        for parameter in filter(torch.is_floating_point, original.parameters()):
            parameter.data.fill_(torch.nan)
        apart = outcome(run, x)
        if not (apart.agrees(expected) if repeatable else apart.logits.isnan().equal(again.isnan())):
            raise ConfigError("model: its deep copy refers to the original (in a hook or its forward?)")
    warn_of_probabilities(expected.logits)
    weights = [function.own[name] for name in convolution_weights(original)]
    wide = repeatable and x.ndim == 4 and _lay_out(function, weights, x, expected)
    return Trial(expected.logits.shape[1], largest_activation(run, x), wide, unused, normalising, independent)


def check_independent(together: Tensor, alone: Tensor) -> bool:
    """Return whether logits of a batch's first examples equal those of these alone; warn otherwise."""
    same = _equal(alone, together[: len(alone)])
    if not same:
        warn("model: the logits of an example depend on the others of its batch, and results on its size")
    return same


def outcome(run: Callable[[Tensor], Tensor], x: Tensor, seed: int = 0) -> Outcome:
    """Compute logits and gradient with the given random seed; the stage is named if one fails."""
    x = x.detach().clone().requires_grad_(True)
    gradient = torch.zeros_like(x)
    with isolated(seed):
        with user_code(f"forward pass on images {tuple(x.shape)} of {x.dtype}"):
            logits = checked_logits(run(x.clone()), x)
        if logits.requires_grad:
            with user_code("gradient by the input"):
                (gradient,) = torch.autograd.grad(_weighted_sum(logits), x, materialize_grads=True)
    return Outcome(logits.detach(), gradient)


def _weighted_sum(logits: Tensor) -> Tensor:
    return (logits * torch.linspace(1, 2, logits.shape[-1], dtype=logits.dtype, device=logits.device)).sum()


def _weight_gradients(function: Stateless, names: Sequence[str], x: Tensor) -> tuple[frozenset, frozenset]:
    """Try the gradients of parameters; return the unused ones and those of normalising functions."""
    leaves = {name: function.own[name].detach().clone().requires_grad_(True) for name in names}
    gradients: Sequence[Tensor | None] = [None] * len(names)
    with isolated(seed=0), NormalisationParameters() as watched, user_code("gradient by the weights"):
        logits = function(leaves, x.clone())
        if logits.requires_grad and leaves:
            gradients = torch.autograd.grad(_weighted_sum(logits), list(leaves.values()), allow_unused=True)
    unused = frozenset(n for n, gradient in zip(names, gradients, strict=True) if gradient is None)
    return unused, frozenset(n for n, leaf in leaves.items() if id(leaf) in watched.ids)


class NormalisationParameters(TorchFunctionMode):
    """Mode that records in `ids` the scales and shifts passed to torch's normalising functions, and the
    leaves from which these are computed."""

    def __init__(self):
        super().__init__()
        self.ids: set[int] = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in NORMALISING_FUNCTIONS:
            for value in (*args[1:], *(kwargs or {}).values()):
                if isinstance(value, Tensor):
                    nodes = graph_nodes(value.grad_fn)
                    self.ids |= {id(value), *(id(n.variable) for n in nodes if hasattr(n, "variable"))}
        return func(*args, **(kwargs or {}))


def _check_copy(original: nn.Module, function: Stateless, x: Tensor, expected: Outcome) -> None:
    """Check that the copy agrees with the original, in evaluation mode, at the given weights (`expected`) and
    at perturbed ones, which stay in the original."""
    if not outcome(original, x).agrees(expected):
        raise ConfigError("model: a deep copy of it gives other logits or gradients; it cannot be measured")
    g = torch.Generator().manual_seed(0)
    own = {n: p for n, p in original.named_parameters() if p.is_floating_point()}
    moved = {n: p.detach() * (0.9 + 0.2 * torch.rand((), generator=g).item()) for n, p in own.items()}
    for name, (leader, shape, stride) in followers(own).items():
        moved[name] = moved[leader].as_strided(shape, stride)
    found = outcome(partial(function, moved), x)  # first, since it may refer to the original's weights
    for name, parameter in own.items():
        parameter.data.copy_(moved[name])
    if not found.agrees(outcome(original, x)):
        differs = "with perturbed weights, a deep copy gives other logits or gradients"
        raise ConfigError(f"model: {differs} (does its forward refer to another module?)")


def _equal(found: Tensor, expected: Tensor) -> bool:
    """Return whether tensors are equal up to rounding; NaN equals NaN."""
    size = expected.nan_to_num(posinf=0, neginf=0).abs().max().item()
    tolerance = min(1e3 * torch.finfo(expected.dtype).eps, 0.1) * max(size, 1.0)
    same_shape = found.shape == expected.shape
    return same_shape and torch.allclose(found, expected, rtol=0, atol=tolerance, equal_nan=True)


def convolution_weights(original: nn.Module) -> list[str]:
    """Return the names of the `nn.Conv2d` weights that may be converted to channels-last. Weights that share
    memory with another parameter are excluded; the sharing is visible in the original only, not in a copy."""
    parameters = dict(original.named_parameters())
    shared = followers(parameters)
    fixed = {*shared, *(leader for leader, _, _ in shared.values())}
    convolutions = [name for name, m in original.named_modules() if isinstance(m, nn.Conv2d)]
    weights = [f"{name}.weight".lstrip(".") for name in convolutions]
    return [name for name in weights if name in parameters and name not in fixed]


def _lay_out(function: Stateless, weights: Sequence[Tensor], x: Tensor, expected: Outcome) -> bool:
    """Convert `weights` to channels-last; undo it and return False if outcomes change."""
    before = [weight.data for weight in weights]
    for weight in weights:
        weight.data = channels_last(weight.data)
    with contextlib.suppress(ConfigError):  # views, or checks in the model, that expect the contiguous layout
        found = outcome(lambda images: function({}, images.clone(memory_format=torch.channels_last)), x)
        if weights and found.agrees(expected):
            return True
    for weight, data in zip(weights, before, strict=True):
        weight.data = data
    return False


def largest_activation(run: Callable[[Tensor], Tensor], x: Tensor) -> int | None:
    """Return the bytes of the largest activation of an example on a CPU; None on other devices."""
    if x.device.type != "cpu":
        return None
    sizes = [1]

    def pack(tensor: Tensor) -> Tensor:
        if tensor.ndim and len(tensor) == len(x):
            sizes.append(tensor.nbytes // len(x))
        return tensor

    kept = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    # networks that call torch.func themselves accept no hooks
    with contextlib.suppress(RuntimeError), isolated(seed=0), kept:
        run(x.clone().requires_grad_(True))
    return max(sizes)
