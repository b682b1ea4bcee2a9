"""ResNet-18 for images of 32x32 (He et al., CVPR 2016): four stages of two blocks."""

from collections.abc import Sequence

from robust_flatness.config import ModelSpec
from robust_flatness.models.resnet import ResNet

COST = {"width": 64, "side": 32, "multiply_adds": 555_422_720, "parameters": 11_174_922}


def build(spec: ModelSpec, classes: int, mean: Sequence[float], std: Sequence[float]) -> ResNet:
    """The network for `classes` classes and `len(mean)` input channels."""
    return ResNet((2, 2, 2, 2), spec.width, classes, mean, std, spec.activation, spec.dropout, 1)
