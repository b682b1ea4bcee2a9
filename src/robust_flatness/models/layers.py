"""Layers of the paper's networks: whitening inside the network and a centred batch norm."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robust_flatness.models.convolution import safe_conv2d

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


class Affine2d(nn.Module):
    """Per channel: scale * x + shift, both [C] and no parameters."""

    def __init__(self, scale: Tensor, shift: Tensor):
        super().__init__()
        self.register_buffer("scale", scale[:, None, None])
        self.register_buffer("shift", shift[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x, self.scale)


class CenteredBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with scale 1 + w, w starting at 0: weight decay pulls the scale to 1, and
    clipping the weights to [-c, c] keeps it in [1 - c, 1 + c]."""

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


def with_affine_norms(network: nn.Module) -> nn.Module:
    """`network`, which is in evaluation mode, with its centred batch norms replaced by what they compute
    with their running statistics, in place: derivatives of it take less time.

    Those with hooks stay. Other batch norms do as well: a network may read their weights elsewhere.
    """
    for module in list(network.modules()):
        for name, norm in list(module.named_children()):
            if type(norm) is not CenteredBatchNorm2d or norm.running_mean is None:
                continue
            if not norm._forward_hooks and not norm._forward_pre_hooks:
                inverse = torch.rsqrt(norm.running_var + norm.eps)
                shift = norm.scale * (-norm.running_mean * inverse) + norm.bias
                setattr(module, name, Affine2d((norm.scale * inverse).detach(), shift.detach()))
    return network
