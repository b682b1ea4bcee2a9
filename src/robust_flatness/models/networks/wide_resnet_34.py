"""WideResNet-34 (Zagoruyko and Komodakis, BMVC 2016); a WideResNet-34-10 is of width 160."""

from collections.abc import Sequence

from robust_flatness.config import ModelSpec
from robust_flatness.models.preactivation import PreActivationResNet

COST = {"width": 160, "side": 32, "multiply_adds": 6_658_906_368, "parameters": 46_160_474}


def build(spec: ModelSpec, classes: int, mean: Sequence[float], std: Sequence[float]) -> PreActivationResNet:
    """The network for `classes` classes and `len(mean)` input channels."""
    return PreActivationResNet((5, 5, 5), 16, spec.width, classes, mean, std, spec.activation, spec.dropout)
