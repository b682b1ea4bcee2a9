"""Networks of the kit and their registry."""

from collections.abc import Sequence

import torch

from robust_flatness.config import ModelSpec
from robust_flatness.models.layers import CenteredBatchNorm2d, Whitening
from robust_flatness.models.resnet import ResNet

#: Residual blocks per stage, and the stride of the first convolution, of each architecture.
MODELS = {"resnet18": ((2, 2, 2, 2), 1), "small-resnet": ((1, 1), 2)}

__all__ = ["MODELS", "CenteredBatchNorm2d", "ResNet", "Whitening", "build_model"]


def build_model(
    spec: ModelSpec,
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    generator: torch.Generator | None = None,
) -> ResNet:
    """The network of `spec` for `classes` classes and `len(mean)` input channels.

    `mean` and `std` are the channel statistics of the training images in [0, 1]. With a
    `generator`, initial weights are drawn from it; without, they are left for loading.
    """
    with torch.random.fork_rng(devices=[]):  # torch's layers draw weights of their own when they are made
        blocks, stem_stride = MODELS[spec.name]
        model = ResNet(blocks, spec.width, classes, mean, std, spec.activation, spec.dropout, stem_stride)
    if generator is not None:
        model.reset_parameters(generator)
    return model
