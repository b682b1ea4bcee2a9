"""ResNet-18 with batch norm and activation before the convolutions (He et al., ECCV 2016)."""

from collections.abc import Sequence

from robust_flatness.config import ModelSpec
from robust_flatness.models.preactivation import PreActivationResNet

COST = {"width": 64, "side": 32, "multiply_adds": 555_422_720, "parameters": 11_172_170}


def build(spec: ModelSpec, classes: int, mean: Sequence[float], std: Sequence[float]) -> PreActivationResNet:
    """The network for `classes` classes and `len(mean)` input channels."""
    return PreActivationResNet(
        (2, 2, 2, 2), spec.width, spec.width, classes, mean, std, spec.activation, spec.dropout
    )
