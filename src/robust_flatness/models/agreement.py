"""Whether two functions of a network's weights are the same one."""

import torch
from torch import Tensor, nn

from robust_flatness.models.copying import at_one_place


def equal(found: Tensor, expected: Tensor) -> bool:
    """Whether logits are equal up to rounding; NaN equals NaN."""
    if found.shape != expected.shape:
        return False
    finite = expected[expected.isfinite()]
    size = finite.abs().max().item() if finite.numel() else 1.0
    tolerance = min(1e3 * torch.finfo(expected.dtype).eps, 0.1) * max(size, 1.0)
    return torch.allclose(found, expected, rtol=0, atol=tolerance, equal_nan=True)


def equal_gradients(found: Tensor | None, expected: Tensor | None) -> bool:
    """Whether gradients, where there are any, are equal up to rounding at their size."""
    if found is None or expected is None:
        return found is expected
    scale = expected.abs().max().item()
    return scale == 0 or equal(found / scale, expected / scale)


def similar_gradients(found: Tensor | None, expected: Tensor | None) -> bool:
    """Whether gradients differ by a twentieth of their norm at most: what rounding may come to where units
    switch sides."""
    if found is None or expected is None:
        return found is expected
    return bool((found - expected).norm() <= 0.05 * expected.norm())


def aliased(model: nn.Module, moved: dict[str, Tensor]) -> dict[str, Tensor]:
    """Parameters that lie at one place in memory have one value."""
    own = dict(model.named_parameters())
    for leader, *others in at_one_place({name: own[name] for name in own if name in moved}):
        for name in others:
            moved[name] = moved[leader].as_strided(own[name].shape, own[name].stride())
    return moved
