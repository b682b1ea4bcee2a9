"""What the first inputs tell of a network: whether it can be measured, and how."""

import contextlib
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from robust_flatness import errors
from robust_flatness.errors import ConfigError
from robust_flatness.models.agreement import equal

Function = Callable[[Tensor], Tensor]

#: The largest activation of the examples that pass a network together on a CPU.
PASS_BYTES = 2**22
#: Outputs of a network that tell where all of them lie.
ENOUGH = 20
#: Fewer than these spend their time on calls, and on reading weights.
LEAST_AT_ONCE = 32


def first_logits(run: Function, x: Tensor) -> Tensor:
    """What a network gives for its first inputs.

    Raises
    ------
    ConfigError
        If it fails, or its output is not of shape [n, K].
    """
    inputs = f"{x.dtype} inputs of shape {tuple(x.shape)}".replace("torch.", "")
    try:
        output = run(x)
    except Exception as error:  # whatever a network raises on inputs it is not made for
        raise ConfigError(f"model: fails on {inputs}: {type(error).__name__}: {error}") from error
    if len(x) == 1 and isinstance(output, Tensor) and output.ndim == 1 and len(output) > 1:
        output = output[None]
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != len(x):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        wrapped = isinstance(output, Mapping | tuple | list) or hasattr(output, "logits")
        hint = "; wrap it in a module that returns these alone" if wrapped else ""
        raise ConfigError(f"model: output {got} for inputs {tuple(x.shape)}; it must be logits [n, K]{hint}")
    if not output.is_floating_point():
        raise ConfigError(f"model: output of {output.dtype}; it must be logits [n, K] of real numbers")
    return output


def examples_at_once(run: Function, x: Tensor) -> int | None:
    """How many examples should pass together on a CPU: so many that no activation leaves the caches, or
    asks the system for fresh memory each time (twice as fast on images of 28 x 28). None elsewhere."""
    if x.device.type != "cpu":
        return None
    sizes = [1]

    def pack(tensor: Tensor) -> Tensor:
        if tensor.ndim and len(tensor) == len(x):
            sizes.append(tensor.nbytes // len(x))
        return tensor

    kept = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    # a model that turns its inputs into NumPy arrays has no gradient, and nothing is kept
    with contextlib.suppress(RuntimeError), torch.enable_grad(), kept:
        run(x.clone().requires_grad_(True))
    return max(LEAST_AT_ONCE, PASS_BYTES // max(sizes))


def check_gradient(run: Function, x: Tensor) -> None:
    """Whether the gradient by the inputs can be computed, and again; a network may have none.

    Raises
    ------
    ConfigError
        If it cannot.
    """
    try:
        for _ in range(2):
            inputs = x.detach().clone().requires_grad_(True)
            logits = run(inputs)
            if logits.requires_grad:
                torch.autograd.grad(logits.sum(), inputs, allow_unused=True)
    except Exception as error:  # whatever a network raises in its backward pass
        reason = f"{type(error).__name__}: {error}".partition(". ")[0]
        raise ConfigError(
            f"model: the gradient by its inputs cannot be computed, or only once ({reason}); a network must "
            "keep nothing with a graph from one call to the next, and take torch.autograd.grad"
        ) from error


def agrees(run: Function, x: Tensor, expected: Tensor) -> bool:
    """Whether a network gives these logits again."""
    try:
        return equal(run(x), expected)
    except RuntimeError:  # .view() of a tensor whose layout it did not expect
        return False


def check_single(run: Function, x: Tensor, expected: Tensor) -> None:
    """Whether a network takes a batch of one, and gives for it what it gave among others; it warns where
    the others count.

    Raises
    ------
    ConfigError
        If it does not.
    """
    try:
        alone = run(x[:1])
    except Exception as error:  # whatever a network raises on a batch of one
        raise ConfigError(
            f"model: fails on a single input {tuple(x[:1].shape)}, which a last batch may be: "
            f"{type(error).__name__}: {error}"
        ) from error
    if alone.shape != expected[:1].shape:
        raise ConfigError(
            f"model: output {tuple(alone.shape)} for inputs {tuple(x[:1].shape)}; "
            "it must be logits [n, K] for a single input, too"
        )
    if not equal(alone, expected[:1]):
        warn(
            "the logits of an example depend on the others of its batch (batch norm without running "
            "statistics?): the numbers depend on the batch size"
        )


def warn_of_probabilities(logits: Tensor) -> None:
    """Warn where outputs are no logits."""
    values = logits.double()
    if logits.shape[1] > 1 and ((values.sum(1) - 1).abs() < 1e-3).all() and (values >= 0).all():
        warn("the outputs are probabilities, not logits: the loss and its gradient are flattened")
    elif logits.shape[1] > 1 and (values.logsumexp(1).abs() < 1e-5).all():
        warn("the outputs are log-probabilities, not logits: large losses may be cut off")


def warn_of_sigmoid(logits: Tensor) -> None:
    """Warn where the outputs of all examples measured lie in [0, 1], on both sides of its middle, and are no
    probabilities of classes that exclude each other. A few numbers may lie there by chance."""
    low, high, sums = logits.min(), logits.max(), logits.double().sum(1)
    inside = logits.numel() >= ENOUGH and 0 <= low < 0.5 < high <= 1
    if logits.shape[1] > 1 and inside and ((sums - 1).abs() > 1e-3).any():
        warn(
            "all outputs lie in [0, 1], as a sigmoid's do: if they are one's, the loss and its gradient are "
            "flattened; return the logits before it"
        )


def warn(message: str) -> None:
    """Say what misleads about a model."""
    errors.warn(f"model: {message}", callers=2)
