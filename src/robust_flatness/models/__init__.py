"""Networks of the kit and their registry."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from robust_flatness.config import ModelSpec
from robust_flatness.models.layers import CenteredBatchNorm2d, Whitening
from robust_flatness.models.preactivation import PreActivationResNet
from robust_flatness.models.resnet import ResNet


def _preactivation(blocks: Sequence[int], stem: int | None, width: int, *rest, **settings) -> nn.Module:
    return PreActivationResNet(blocks, stem or width, width, *rest, **settings)


#: What makes each architecture of (width, classes, mean, std, activation, dropout); stages have so many
#: residual blocks, the first of `width` channels. A WideResNet-28-10 is of width 160.
MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet18": partial(ResNet, (2, 2, 2, 2)),
    "small-resnet": partial(ResNet, (1, 1), stem_stride=2),
    "preact-resnet18": partial(_preactivation, (2, 2, 2, 2), None),
    "wide-resnet-28": partial(_preactivation, (4, 4, 4), 16),
    "wide-resnet-34": partial(_preactivation, (5, 5, 5), 16),
}

__all__ = ["MODELS", "CenteredBatchNorm2d", "PreActivationResNet", "ResNet", "Whitening", "build_model"]


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
        make = MODELS[spec.name]
        model = make(spec.width, classes, mean, std, activation=spec.activation, dropout=spec.dropout)
    if generator is not None:
        model.reset_parameters(generator)
    return model
