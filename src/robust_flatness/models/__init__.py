"""Networks of the kit."""

from collections.abc import Sequence

import torch
from torch import nn

from robust_flatness.config import ModelSpec, kinds
from robust_flatness.models.layers import CenteredBatchNorm2d, Whitening
from robust_flatness.models.preactivation import PreActivationResNet
from robust_flatness.models.resnet import ResNet

__all__ = ["CenteredBatchNorm2d", "PreActivationResNet", "ResNet", "Whitening", "build_model"]


def build_model(
    spec: ModelSpec,
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    generator: torch.Generator | None = None,
) -> nn.Module:
    """The network of `spec` for `classes` classes and `len(mean)` input channels.

    `mean` and `std` are the channel statistics of the training images in [0, 1]. With a
    `generator`, initial weights are drawn from it; without, they are left for loading. It has `features`,
    `feature_size` and `classifier`.
    """
    with torch.random.fork_rng(devices=[]):  # torch's layers draw weights of their own when they are made
        model = kinds.load(kinds.NETWORKS, spec.name).build(spec, classes, mean, std)
    if generator is not None:
        model.reset_parameters(generator)
    return model
