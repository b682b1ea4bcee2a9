"""The boundary to anyone's model: what is tried on two images, and refused, before anything is measured.

Whatever the model's code raises here becomes one `ConfigError` that names the stage; the original error is
chained. Nothing of the model changes.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from robust_flatness import errors
from robust_flatness.architectures.convolution import channels_last
from robust_flatness.architectures.layers import SafeConv2d, is_unsafe
from robust_flatness.architectures.stateless import Stateless
from robust_flatness.errors import ConfigError
from robust_flatness.perturbable import NormalisationParameters
from robust_flatness.runtime.isolation import isolated

Run = Callable[[Tensor], Tensor]

#: Number of outputs from which their range is judged.
ENOUGH_OUTPUTS = 20
#: Gradients of equal functions may differ by this share of their norm in another memory layout, where rounding
#: moves units across their kinks.
LAYOUT_TOLERANCE = 0.05


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Turn whatever a model's code raises in the block into a `ConfigError` that names the stage."""
    try:
        yield
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(f"model: {name} failed: {type(error).__name__}: {error}") from error


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside `torch.compile` and data-parallel wrappers: compiling for a few calls does not
    pay, and a measure runs on one device."""
    if type(model).__name__ == "OptimizedModule":
        return unwrapped(model._orig_mod)
    hooks = model._forward_hooks or model._forward_pre_hooks
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel) and not hooks:
        return unwrapped(model.module)
    return model


@torch.inference_mode(False)
@torch.no_grad()
def evaluation_copy(model: nn.Module) -> nn.Module:
    """Return a deep copy of `model` in evaluation mode with frozen parameters and no gradients.

    Raises
    ------
    ConfigError
        If the model has tensors that are not supported, or cannot be copied.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model: {type(model).__name__} given; expected a torch.nn.Module")
    _refuse_unsupported(model)
    with stage("deep copy"):
        network = copy.deepcopy(model, _activations(model))
    if not _parts(model).isdisjoint(_parts(network)):
        raise ConfigError("model: its deep copy shares modules or tensors with it; it cannot be measured")
    with stage("evaluation mode"):
        network.eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    for module in network.modules():
        if type(module) is nn.Conv2d and is_unsafe(module):
            module.__class__ = SafeConv2d
    return network


def _refuse_unsupported(model: nn.Module) -> None:
    kinds = {
        name: "a scripted module"
        for name, m in model.named_modules()
        if isinstance(m, torch.jit.ScriptModule)
    }
    if not kinds:
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if is_lazy(tensor):
                kinds[name] = "not initialised; call the model once"
            elif (
                tensor.is_complex()
                or tensor.is_nested
                or tensor.layout != torch.strided
                or tensor.is_inference()
            ):
                kinds[name] = "a complex, nested, sparse or inference-mode tensor"
    for name, kind in kinds.items():
        raise ConfigError(f"model: {name or 'it'} is {kind}; expected a module of dense real tensors")


def _activations(model: nn.Module) -> dict[int, Any]:
    """For `copy.deepcopy`: copies of the tensors with a graph that modules hold, such as weights computed by
    weight norm, spectral norm and pruning, and activations kept by a forward pass."""
    held = tree_leaves([vars(module) for module in model.modules()])
    return {id(t): t.detach().clone() for t in held if isinstance(t, Tensor) and not t.is_leaf}


def _parts(model: nn.Module) -> set[int]:
    tensors = {t.data_ptr() for t in (*model.parameters(), *model.buffers()) if t.numel()}
    return tensors | {id(module) for module in model.modules()}


class Trial(NamedTuple):
    """What two images tell about a network.

    Attributes
    ----------
    classes
        K of the logits [n, K].
    bytes_per_example
        Size of the largest activation of one example; None on other devices than the CPU.
    channels_last
        Whether images and convolutions are laid out channels-last.
    unused
        Names of parameters that do not influence the logits.
    normalising
        Names of parameters by which a function normalises (see `neighbours`).
    """

    classes: int
    bytes_per_example: int | None
    channels_last: bool = False
    unused: frozenset[str] = frozenset()
    normalising: frozenset[str] = frozenset()


class Outcome(NamedTuple):
    """Logits, and the gradient of a weighted sum of them by the images (None if it does not depend on them)."""

    logits: Tensor
    gradient: Tensor | None


def outcome(run: Run, x: Tensor, seed: int = 0) -> Outcome:
    """Compute logits and gradient with the given random seed; both stages are named if they fail."""
    x = x.detach().clone().requires_grad_(True)
    with isolated(seed):
        with stage(f"forward pass on images of shape {tuple(x.shape)}, {x.dtype},"):
            logits = checked_logits(run(x.clone()), x)
        gradient = None
        if logits.requires_grad:
            with stage("gradient by the input"):
                (gradient,) = torch.autograd.grad(weighted_sum(logits), x, allow_unused=True)
    return Outcome(logits.detach(), gradient)


def weighted_sum(logits: Tensor) -> Tensor:
    """A sum that tells the classes apart."""
    return (logits * torch.linspace(1, 2, logits.shape[-1], dtype=logits.dtype, device=logits.device)).sum()


def checked_logits(output: Any, x: Tensor) -> Tensor:
    """Return `output` if it holds logits [n, K] of real numbers; raise `ConfigError` if not."""
    if isinstance(output, Tensor) and len(x) == 1 and output.ndim == 1 and len(output) > 1:
        output = output[None]
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != len(x):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        wrapped = isinstance(output, Mapping | tuple | list) or hasattr(output, "logits")
        hint = "; wrap it in a module that returns these alone" if wrapped else ""
        raise ConfigError(f"model: output {got} for inputs {tuple(x.shape)}; it must be logits [n, K]{hint}")
    if not output.is_floating_point():
        raise ConfigError(f"model: output of {output.dtype}; it must be logits [n, K] of real numbers")
    return output


def try_model(original: nn.Module, function: Stateless, names: Sequence[str], x: Tensor) -> Trial:
    """Try a copy of `original` on the images `x`, by itself and against the original.

    Parameters
    ----------
    function
        The copy, whose convolutions may be laid out channels-last here.
    names
        The parameters by which gradients are taken.

    Raises
    ------
    ConfigError
        If a stage fails, or the copy computes something else.
    """

    def run(images: Tensor) -> Tensor:
        return function({}, images)

    with restored(original):
        with stage("evaluation mode"):
            original.eval()
        expected = outcome(run, x)
        unused, normalising = _weight_gradients(function, names, x)
        repeatable = check_examples(run, x, expected)
        if repeatable:
            check_copy(original, function, x, expected)
        images = repeatable and x.ndim == 4
        weights = [function.own[name] for name in convolution_weights(function.module) if images]
        before = {weight: weight.data for weight in weights}
        for weight in weights:
            weight.data = channels_last(weight.data)
        wide = bool(weights) and suits_channels_last(
            lambda images: run(images.clone(memory_format=torch.channels_last)), x, expected
        )
        if not wide:
            for weight, data in before.items():
                weight.data = data
    warn_of_probabilities(expected.logits)
    classes = expected.logits.shape[1]
    return Trial(classes, largest_activation(run, x), wide, unused, normalising)


def check_examples(run: Run, x: Tensor, expected: Outcome) -> bool:
    """Check that the logits of an example depend on nothing else; warn of randomness, and return whether equal
    random seeds give equal logits.

    Raises
    ------
    ConfigError
        If it fails on a single image.
    """
    repeatable = equal(outcome(run, x).logits, expected.logits)
    if not repeatable:
        warn(
            "equal inputs give different logits in two calls with one random seed: the model keeps state, or a "
            "random generator; the results depend on the order of calls"
        )
    random = repeatable and not equal(outcome(run, x, seed=1).logits, expected.logits)
    if random:
        warn("the model is random: equal inputs give different logits; the results hold for one draw")
    single = outcome(run, x[:1]).logits
    if repeatable and not random and not equal(single, expected.logits[:1]):
        warn(
            "the logits of an example depend on the others of its batch (batch norm without running "
            "statistics?): the results depend on the batch size"
        )
    return repeatable


def check_copy(original: nn.Module, function: Stateless, x: Tensor, expected: Outcome) -> None:
    """Check that a copy computes what the original does, at the given weights (`expected`) and at perturbed
    ones; the original must be in evaluation mode.

    Raises
    ------
    ConfigError
        If it does not.
    """
    g = torch.Generator().manual_seed(0)
    own = {n: p for n, p in original.named_parameters() if p.is_floating_point()}
    moved = {n: p.detach() * (0.9 + 0.2 * torch.rand((), generator=g).item()) for n, p in own.items()}
    for follower, (leader, shape, stride) in followers(own).items():
        moved[follower] = moved[leader].as_strided(shape, stride)
    if not same(outcome(original, x), expected):
        raise ConfigError("model: a deep copy of it gives other logits or gradients; it cannot be measured")
    with restored(original):
        for name, parameter in own.items():
            parameter.data.copy_(moved[name])
        perturbed = outcome(original, x)
    if not same(outcome(lambda images: function(moved, images), x), perturbed):
        raise ConfigError(
            "model: its weights cannot be exchanged: a deep copy with perturbed weights gives other logits or "
            "gradients than the model itself (does its forward refer to another module?)"
        )


def _weight_gradients(
    function: Stateless, names: Sequence[str], x: Tensor
) -> tuple[frozenset[str], frozenset[str]]:
    """Try the gradient by the parameters `names`; return those that are unused and those that normalise."""
    leaves = {name: function.own[name].detach().clone().requires_grad_(True) for name in names}
    gradients: Sequence[Tensor | None] = [None] * len(names)
    with isolated(seed=0), NormalisationParameters() as watched, stage("gradient by the weights"):
        logits = function(leaves, x.clone())
        if logits.requires_grad and leaves:
            gradients = torch.autograd.grad(weighted_sum(logits), list(leaves.values()), allow_unused=True)
    unused = frozenset(n for n, gradient in zip(names, gradients, strict=True) if gradient is None)
    return unused, frozenset(n for n, leaf in leaves.items() if id(leaf) in watched.ids)


def convolution_weights(module: nn.Module) -> list[str]:
    """Names of the weights of two-dimensional convolutions."""
    convolutions = [
        n for n, m in module.named_modules() if isinstance(m, nn.Conv2d) and "weight" in m._parameters
    ]
    return [f"{name}.weight".lstrip(".") for name in convolutions]


@contextlib.contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Restore tensors, modes and attributes of `model`, lists and dictionaries included, at the end."""
    tensors = [(t, t.detach().clone()) for t in (*model.parameters(), *model.buffers())]
    tables = [vars(module) for module in model.modules()]
    tables += [value for table in tables for value in table.values() if isinstance(value, dict | list | set)]
    contents = [(table, copy.copy(table)) for table in tables]
    try:
        yield
    finally:
        for table, content in contents:
            table.clear()
            (table.extend if isinstance(table, list) else table.update)(content)
        for tensor, value in tensors:
            tensor.data.copy_(value)


def followers(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, torch.Size, tuple[int, ...]]]:
    """For each tensor that shares all its memory with one before it: the name of that, and shape and strides."""
    leaders: dict[tuple, str] = {}
    found = {}
    for name, tensor in tensors.items():
        leader = leaders.setdefault((tensor.data_ptr(), tensor.numel(), tensor.dtype), name)
        if leader != name and tensor.numel():
            found[name] = leader, tensor.shape, tensor.stride()
    return found


def same(found: Outcome, expected: Outcome) -> bool:
    """Whether logits and gradients are equal up to rounding."""
    if found.gradient is None or expected.gradient is None:
        gradients = found.gradient is expected.gradient
    else:
        scale = expected.gradient.abs().max().item() or 1.0
        gradients = equal(found.gradient / scale, expected.gradient / scale)
    return gradients and equal(found.logits, expected.logits)


def equal(found: Tensor, expected: Tensor) -> bool:
    """Whether tensors are equal up to rounding; NaN equals NaN."""
    if found.shape != expected.shape:
        return False
    finite = expected[expected.isfinite()]
    size = finite.abs().max().item() if finite.numel() else 1.0
    tolerance = min(1e3 * torch.finfo(expected.dtype).eps, 0.1) * max(size, 1.0)
    return torch.allclose(found, expected, rtol=0, atol=tolerance, equal_nan=True)


def suits_channels_last(run: Run, x: Tensor, expected: Outcome) -> bool:
    """Whether the network, laid out channels-last, computes the same up to rounding."""
    try:
        found = outcome(run, x)
    except ConfigError:  # .view() of a tensor, or a check, that expects the contiguous layout
        return False
    if found.gradient is None or expected.gradient is None:
        return found.gradient is expected.gradient and equal(found.logits, expected.logits)
    difference = (found.gradient - expected.gradient).norm()
    similar = bool(difference <= LAYOUT_TOLERANCE * expected.gradient.norm())
    return similar and equal(found.logits, expected.logits)


def largest_activation(run: Run, x: Tensor) -> int | None:
    """Bytes of the largest activation of an example on a CPU; None on other devices."""
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


def warn_of_probabilities(logits: Tensor) -> None:
    """Warn where outputs are probabilities or log-probabilities."""
    values = logits.double()
    if logits.shape[1] > 1 and ((values.sum(1) - 1).abs() < 1e-3).all() and (values >= 0).all():
        warn("the outputs are probabilities, not logits: the loss and its gradient are flattened")
    elif logits.shape[1] > 1 and (values.logsumexp(1).abs() < 1e-5).all():
        warn("the outputs are log-probabilities, not logits: large losses may be cut off")


def warn_of_sigmoid(logits: Tensor) -> None:
    """Warn where the outputs of all examples look like those of a sigmoid. Few outputs may lie in [0, 1] by
    chance."""
    low, high, sums = logits.min(), logits.max(), logits.double().sum(1)
    inside = logits.numel() >= ENOUGH_OUTPUTS and 0 <= low < 0.5 < high <= 1
    if logits.shape[1] > 1 and inside and ((sums - 1).abs() > 1e-3).any():
        warn(
            "all outputs lie in [0, 1], as those of a sigmoid: if they are, the loss and its gradient are "
            "flattened; return the logits before it"
        )


def warn(message: str) -> None:
    """Warn of a property of the model that makes results misleading."""
    errors.warn(f"model: {message}", callers=2)
