"""Layers of the paper's networks: whitening inside the network and a centred batch norm."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robust_flatness.architectures.convolution import UNSAFE_CHANNELS, inside_transform, safe_conv2d

ACTIVATIONS = {"relu": nn.ReLU, "mish": nn.Mish, "silu": nn.SiLU, "gelu": nn.GELU}


class Whitening(nn.Module):
    """Clamp to [0, 1], subtract the channel means, divide by the channel standard deviations.

    Buffers of shape [1, C, 1, 1], so no part of the weights that are perturbed.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(list(mean)).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(list(std)).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x.clamp(0, 1) - self.mean) / self.std


class SafeConv2d(nn.Conv2d):
    """`nn.Conv2d` whose gradients can be trusted when it is 1x1, strided and of few channels."""

    def forward(self, x: Tensor) -> Tensor:
        return safe_conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def is_unsafe(conv: nn.Conv2d) -> bool:
    """Whether torch's gradient with respect to the weight of `conv` can write past its memory."""
    pointwise, strided = conv.kernel_size == (1, 1), conv.stride != (1, 1)
    return pointwise and strided and conv.padding in ((0, 0), "valid") and conv.in_channels < UNSAFE_CHANNELS


class SpatialMean(nn.Module):
    """Mean over height and width: [n, C, H, W] to [n, C].

    In channels-last layout the gradient stays in that layout, which `x.mean((2, 3))` loses.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not inside_transform() and x.is_contiguous(memory_format=torch.channels_last):
            return x.permute(0, 2, 3, 1).flatten(1, 2).mean(dim=1)
        return x.mean(dim=(2, 3))


class CenteredBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with scale 1 + w, w starting at 0: weight decay pulls the scale to 1, and clipping the
    weights to [-c, c] keeps it in [1 - c, 1 + c]."""

    def reset_parameters(self) -> None:
        self.reset_running_stats()
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    @property
    def scale(self) -> Tensor:
        """The factor applied to the normalised activations, shape [C]."""
        return 1 + self.weight

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.num_batches_tracked.add_(1)
        factor = self.momentum
        if factor is None:  # cumulative average, as torch.optim.swa_utils.update_bn asks for
            factor = 1.0 / float(self.num_batches_tracked) if self.training else 0.0
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.scale, self.bias, self.training, factor, self.eps
        )
