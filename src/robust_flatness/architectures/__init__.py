"""The kit's networks, by name. They map images [n, C, H, W] in [0, 1] to logits [n, K] and have
`reset_parameters(generator)`; for self-supervision also `features(x)`, `feature_size` and a linear layer
`classifier`. To add one, add it to `NETWORKS` and its cost to `robust_flatness.config.catalogue.COSTS`."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from robust_flatness.architectures.resnet import PreActivationResNet, ResNet
from robust_flatness.config import ModelSpec

#: Called with width, classes, mean, std, activation and dropout.
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    # for images of 8x8: the stem halves them, then two stages of one block
    "small-resnet": partial(ResNet, (1, 1), stem_stride=2),
    # He et al., CVPR 2016, for images of 32x32
    "resnet18": partial(ResNet, (2, 2, 2, 2), stem_stride=1),
    # He et al., ECCV 2016: batch norm and activation before the convolutions
    "preact-resnet18": partial(PreActivationResNet, (2, 2, 2, 2)),
    # Zagoruyko and Komodakis, BMVC 2016; a WideResNet-28-10 has width 160
    "wide-resnet-28": partial(PreActivationResNet, (4, 4, 4), stem=16),
    "wide-resnet-34": partial(PreActivationResNet, (5, 5, 5), stem=16),
}


def build_model(
    spec: ModelSpec, classes: int, mean: Sequence[float], std: Sequence[float],
    generator: torch.Generator | None = None,
) -> nn.Module:  # fmt: skip
    """Build the network of `spec` for `classes` classes and images with the channel statistics `mean`, `std`
    in [0, 1]. Weights are drawn from `generator`; without one they are arbitrary, to be loaded."""
    with torch.random.fork_rng(devices=[]):  # torch's layers draw initial weights when they are constructed
        model = NETWORKS[spec.name](spec.width, classes, mean, std, spec.activation, spec.dropout)
    if generator is not None:
        model.reset_parameters(generator)
    return model
