"""ResNet-18 for images of 32x32 (He et al., CVPR 2016): four stages of two blocks."""

from collections.abc import Sequence

from robust_flatness.config import ModelSpec
from robust_flatness.models.resnet import ResNet

#: A 32x32 image through width 64.
PASSES = (64, 20, 2500)


def build(spec: ModelSpec, classes: int, mean: Sequence[float], std: Sequence[float]) -> ResNet:
    """The network for `classes` classes and `len(mean)` input channels."""
    return ResNet((2, 2, 2, 2), spec.width, classes, mean, std, spec.activation, spec.dropout, 1)
