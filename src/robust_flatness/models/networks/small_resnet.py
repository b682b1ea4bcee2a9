"""A small ResNet for images of 8x8: the stem halves them, then two stages of one block."""

from collections.abc import Sequence

from robust_flatness.config import ModelSpec
from robust_flatness.models.resnet import ResNet

COST = {"width": 16, "side": 8, "multiply_adds": 133_696, "parameters": 19_754}


def build(spec: ModelSpec, classes: int, mean: Sequence[float], std: Sequence[float]) -> ResNet:
    """The network for `classes` classes and `len(mean)` input channels."""
    return ResNet((1, 1), spec.width, classes, mean, std, spec.activation, spec.dropout, 2)
