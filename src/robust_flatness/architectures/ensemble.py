"""Several residual networks of the kit side by side, as one with grouped convolutions."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robust_flatness.architectures.convolution import channels_last
from robust_flatness.architectures.folding import DtypeLinear, FoldedConv2d
from robust_flatness.architectures.layers import Whitening
from robust_flatness.architectures.resnet import ResNet
from robust_flatness.architectures.stateless import Stateless


class Ensemble:
    """Networks with different weights, each applied to its own share of a batch.

    Small networks on small batches spend their time on calls; side by side they make as many as one.
    `networks` are views `net.at(weights)` of one `robust_flatness.network.Network` for which `fits` holds.
    """

    def __init__(self, networks: Sequence[Any]):
        self._folding, self.count = networks[0].folding, len(networks)
        wide = self._folding.wide
        if self.count not in wide:
            self._folding.function.restore()  # a copy has the module's own parameters
            wide[self.count] = Stateless(_widened(self._folding.function.module, self.count))
        self._function = wide[self.count]
        members = [network.tensors() for network in networks]
        names = [name for name, _ in self._function.module.named_parameters()]
        joined = {name: torch.cat([tensors[name] for tensors in members]) for name in names}
        joined = {name: channels_last(t) if t.ndim == 4 else t for name, t in joined.items()}
        self._tensors = {"float32": joined}

    @staticmethod
    def fits(net: Any, x: Tensor) -> bool:
        """Whether `net` is a `ResNet`, whose channels meet nowhere outside its layers."""
        return net.folding is not None and type(net.module) is ResNet and x.ndim == 4

    def logits(self, x: Tensor, precision: str = "float32") -> Tensor:
        """Logits [count * n, K] of inputs [count * n, C, H, W]: member i has the i-th n of them."""
        if precision not in self._tensors:
            self._tensors[precision] = self._folding.lowered(self._tensors["float32"])
        count, channels = self.count, x.shape[1]
        n = len(x) // count
        side_by_side = x.view(count, n, *x.shape[1:]).transpose(0, 1)
        side_by_side = side_by_side.reshape(n, count * channels, *x.shape[2:])
        side_by_side = side_by_side.contiguous(memory_format=torch.channels_last)
        out = self._function(self._tensors[precision], side_by_side)
        return out.view(n, count, -1).transpose(0, 1).reshape(len(x), -1).to(x.dtype)


class _Linears(nn.Module):
    """`count` linear layers on [n, count * F], to [n, count * K]."""

    def __init__(self, linear: DtypeLinear, count: int):
        super().__init__()
        self.count, self.weight, self.bias = count, linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        inputs = x.to(self.weight.dtype).view(len(x), self.count, -1).transpose(0, 1)
        matrices = self.weight.view(self.count, -1, self.weight.shape[1]).transpose(1, 2)
        out = torch.baddbmm(self.bias.view(self.count, 1, -1), inputs, matrices)
        return out.transpose(0, 1).reshape(len(x), -1)


def _widened(module: nn.Module, count: int) -> nn.Module:
    """A folded ResNet with `count` times the channels in separate groups; its weights are swapped in."""
    wide = copy.deepcopy(module)
    for name, layer in list(wide.named_modules()):
        parent, _, key = name.rpartition(".")
        if isinstance(layer, FoldedConv2d):
            layer.groups = count
        elif isinstance(layer, DtypeLinear):
            setattr(wide.get_submodule(parent), key, _Linears(layer, count))
        elif isinstance(layer, Whitening):
            layer.mean, layer.std = (t.repeat(1, count, 1, 1) for t in (layer.mean, layer.std))
    return wide
