"""Inputs and labels as people hold them, checked, and in the one form that measures take."""

import torch
from torch import Tensor

from robust_flatness.errors import ConfigError, NonFiniteError


def count_of(y: Tensor) -> int:
    """How many targets there are.

    Raises
    ------
    ConfigError
        If `y` is no tensor [n, ...].
    """
    if not isinstance(y, Tensor) or not y.ndim:
        kind = "a single number" if isinstance(y, Tensor) else type(y).__name__
        raise ConfigError(f"y: {kind} given; expected a tensor of integer labels [n]")
    return len(y)


def checked_inputs(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs without a graph, and labels [n] as int64.

    Labels of other integer types are converted, and so are whole numbers as floats, one column
    [n, 1], and one-hot rows [n, K].

    Raises
    ------
    ConfigError
        Unless there are as many targets as inputs, at least one, inputs are in [0, 1], and the
        targets are labels.
    """
    x = checked_images(x, count_of(y))
    return x, labels(y)


def checked_images(x: Tensor, targets: int) -> Tensor:
    """Inputs without a graph.

    Raises
    ------
    ConfigError
        Unless there are as many as targets, at least one, and they are in [0, 1].
    """
    if not isinstance(x, Tensor) or not x.ndim or x.layout != torch.strided or x.is_meta:
        kind = f"{x.layout} on {x.device}, {x.ndim}-d" if isinstance(x, Tensor) else type(x).__name__
        raise ConfigError(f"x: {kind} given; expected a tensor of inputs [n, ...] in [0, 1]")
    if len(x) == 0 or len(x) != targets:
        raise ConfigError(f"x, y: {len(x)} inputs and {targets} targets; give one target for each input")
    if not x.is_floating_point():
        raise ConfigError(f"x: dtype {x.dtype}; inputs must be floating-point numbers in [0, 1]")
    x = x.detach()
    low, high = x.aminmax()
    if not (low >= 0 and high <= 1):
        where = f" (NaN in input {_first(x.flatten(1).isnan().any(1))})" if low.isnan() else ""
        raise ConfigError(f"x: values from {low:.4g} to {high:.4g}; inputs must be numbers in [0, 1]{where}")
    return _usable(x)


def labels(y: Tensor) -> Tensor:
    """Labels [n] as int64.

    Raises
    ------
    ConfigError
        If `y` holds no labels, or negative ones (such as -100 for examples to be ignored).
    """
    y = y.detach()
    if y.is_complex() or y.ndim not in (1, 2):
        raise ConfigError(f"y: {y.dtype} of shape {tuple(y.shape)}; expected integer labels [n]")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2:
        if not (((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all()):
            raise ConfigError(
                f"y: {y.dtype} of shape {tuple(y.shape)}, rows that are not one-hot; "
                "expected integer labels [n]"
            )
        y = y.to(torch.uint8).argmax(1)
    if y.is_floating_point() and not (y.isfinite().all() and (y == y.round()).all()):
        raise ConfigError("y: numbers that are not whole; expected integer labels [n]")
    converted = y.to(torch.int64)
    if converted.min() < 0:
        raise ConfigError(
            f"y: label {int(converted.min())} of example {_first(converted < 0)}; labels are 0 to K - 1 "
            "(leave examples out that are to be ignored)"
        )
    return _usable(converted)


def are_probabilities(y: Tensor) -> bool:
    """Whether `y` holds probabilities of the classes, [n, K], that are not one-hot."""
    return (
        y.ndim == 2
        and y.shape[1] > 1
        and y.is_floating_point()
        and bool((y >= 0).all() and ((y.sum(1) - 1).abs() < 1e-3).all() and (y.amax(1) < 1).any())
    )


def check_classes(y: Tensor, classes: int) -> None:
    """Raise `ConfigError` unless all labels are below `classes`."""
    if y.max() >= classes:
        raise ConfigError(
            f"y: label {int(y.max())} of example {_first(y >= classes)}, but the model has {classes} classes "
            f"(logits [n, {classes}]); labels are 0 to {classes - 1}"
        )


def _first(found: Tensor) -> int:
    return int(found.nonzero()[0])


def _usable(tensor: Tensor) -> Tensor:
    """A tensor made in inference mode cannot take part in a gradient: a copy can."""
    if not tensor.is_inference():
        return tensor
    with torch.inference_mode(False):
        return tensor.clone()


def require_positive(**counts: int | None) -> None:
    """Raise `ConfigError` for counts below 1; None is none."""
    for name, value in counts.items():
        if value is not None and not value >= 1:
            raise ConfigError(f"{name}: {value} given, but it must be at least 1")


def require_finite(values: Tensor, where: str, first: int = 0) -> None:
    """Raise `NonFiniteError` if a row of `values` (logits or losses, of the examples from `first` on) is NaN
    or infinite."""
    finite = values.detach().isfinite().flatten(1).all(1) if values.ndim > 1 else values.detach().isfinite()
    if not finite.all():
        count = int((~finite).sum())
        raise NonFiniteError(
            f"model: NaN or infinite logits {where}, for {count} of {len(finite)} examples, first "
            f"example {first + _first(~finite)}"
        )
