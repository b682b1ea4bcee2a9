"""WideResNet-28 (Zagoruyko and Komodakis, BMVC 2016); a WideResNet-28-10 is of width 160."""

from collections.abc import Sequence

from robust_flatness.config import ModelSpec
from robust_flatness.models.preactivation import PreActivationResNet

COST = {"width": 160, "side": 32, "multiply_adds": 5_243_328_768, "parameters": 36_479_194}


def build(spec: ModelSpec, classes: int, mean: Sequence[float], std: Sequence[float]) -> PreActivationResNet:
    """The network for `classes` classes and `len(mean)` input channels."""
    return PreActivationResNet((4, 4, 4), 16, spec.width, classes, mean, std, spec.activation, spec.dropout)
