"""Checks of inputs, labels and logits; they raise `ConfigError` for what cannot be used."""

from typing import Any

import torch
from torch import Tensor

from robust_flatness.errors import ConfigError, NonFiniteError, warn

#: Smallest number of outputs from which their range is judged.
ENOUGH_OUTPUTS = 20


def checked_inputs(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return inputs [n, ...] in [0, 1] without a graph, and labels [n], of any integer type, as int64."""
    if not isinstance(y, Tensor) or y.ndim != 1 or y.is_floating_point() or y.is_complex():
        kind = f"{y.dtype} of shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise ConfigError(f"y: {kind} given; expected a tensor of integer labels [n]")
    dense = isinstance(x, Tensor) and x.ndim > 1 and x.layout == torch.strided
    if not dense or not x.is_floating_point():
        kind = f"{x.dtype}, {x.layout}, {x.ndim}-d" if isinstance(x, Tensor) else type(x).__name__
        raise ConfigError(f"x: {kind} given; expected a tensor of floating-point inputs [n, ...] in [0, 1]")
    if len(x) == 0 or len(x) != len(y):
        raise ConfigError(f"x, y: {len(x)} inputs and {len(y)} labels; give one label for each input")
    x, y = x.detach(), y.detach().to(torch.int64)
    low, high = x.aminmax()
    if not (low >= 0 and high <= 1):
        where = f" (NaN in input {_first(x.flatten(1).isnan().any(1))})" if low.isnan() else ""
        raise ConfigError(f"x: values from {low:.4g} to {high:.4g}; inputs must be numbers in [0, 1]{where}")
    if y.min() < 0:
        raise ConfigError(f"y: label {int(y.min())} of example {_first(y < 0)}; labels are 0 to K - 1")
    # tensors made in inference mode cannot take part in a gradient
    return tuple(tensor.clone() if tensor.is_inference() else tensor for tensor in (x, y))


def check_classes(y: Tensor, classes: int) -> None:
    """Raise `ConfigError` unless all labels are below `classes`."""
    if y.max() >= classes:
        example = f"label {int(y.max())} of example {_first(y >= classes)}"
        raise ConfigError(f"y: {example}, but the model has {classes} classes (logits [n, {classes}])")


def checked_logits(output: Any, x: Tensor) -> Tensor:
    """Return `output` if it holds logits [n, K] of real numbers; those of one image may be [K]."""
    if isinstance(output, Tensor) and len(x) == 1 and output.ndim == 1 and len(output) > 1:
        output = output[None]
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != len(x):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ConfigError(f"model: output {got} for inputs {tuple(x.shape)}; it must be logits [n, K]")
    if not output.is_floating_point():
        raise ConfigError(f"model: output of {output.dtype}; it must be logits [n, K] of real numbers")
    return output


def warn_of_probabilities(logits: Tensor) -> None:
    """Warn where outputs are probabilities: not negative, with rows that sum to 1."""
    if logits.shape[1] > 1 and (logits >= 0).all() and ((logits.double().sum(1) - 1).abs() < 1e-3).all():
        warn("model: outputs are probabilities, not logits: the loss and its gradient are flattened")


def warn_of_sigmoid(logits: Tensor) -> None:
    """Warn where outputs look like those of a sigmoid; a few may lie in [0, 1] by chance."""
    low, high, sums = logits.min(), logits.max(), logits.double().sum(1)
    inside = logits.numel() >= ENOUGH_OUTPUTS and 0 <= low < 0.5 < high <= 1
    if logits.shape[1] > 1 and inside and ((sums - 1).abs() > 1e-3).any():
        warn("model: all outputs lie in [0, 1], as those of a sigmoid; return the logits before it")


def require_finite(values: Tensor, where: str, first: int = 0) -> None:
    """Raise `NonFiniteError` if one of the examples from `first` on has NaN or infinite logits or losses."""
    finite = values.detach().isfinite().view(len(values), -1).all(1)
    if not finite.all():
        some = f"{int((~finite).sum())} of {len(finite)} examples, first example {first + _first(~finite)}"
        kind = "model: NaN or infinite logits" if values.ndim > 1 else "loss: NaN or infinite losses"
        raise NonFiniteError(f"{kind} {where}, for {some}")


def _first(mask: Tensor) -> int:
    return int(mask.nonzero()[0])
