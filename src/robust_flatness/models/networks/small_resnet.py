"""A small ResNet for images of 8x8: the stem halves them, then two stages of one block."""

from collections.abc import Sequence

from robust_flatness.config import ModelSpec
from robust_flatness.models.resnet import ResNet

#: An 8x8 image through width 16; a GPU is no faster with so little to do.
PASSES = (16, 2000, 2000)


def build(spec: ModelSpec, classes: int, mean: Sequence[float], std: Sequence[float]) -> ResNet:
    """The network for `classes` classes and `len(mean)` input channels."""
    return ResNet((1, 1), spec.width, classes, mean, std, spec.activation, spec.dropout, 2)
