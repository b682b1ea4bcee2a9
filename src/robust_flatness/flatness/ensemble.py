"""Several perturbed networks of the kit side by side, as one with grouped convolutions."""

import copy

import torch
from torch import Tensor, nn

from robust_flatness.models import ResNet, Whitening
from robust_flatness.models.convolution import channels_last_strides, conv2d
from robust_flatness.models.folding import FoldedConv2d, lowered
from robust_flatness.models.inference import InferenceModel


class Ensemble:
    """`count` networks with weights of their own, each on its own share of the inputs.

    Small networks on small batches spend their time on calls, not on numbers; side by side they
    make as many calls as one. The weights of member i are those that `net` has when `take(i)` is
    called. See `fits` for the networks that can be laid side by side.
    """

    def __init__(self, net: InferenceModel, count: int):
        self.count = count
        self._single = dict(net.computing().named_parameters())
        self._wide = {"float32": _widened(net.computing(), count)}
        weights = dict(self._wide["float32"].named_parameters())
        self._members = [[weights[name].chunk(count)[i] for name in self._single] for i in range(count)]

    @staticmethod
    def fits(net: InferenceModel, x: Tensor) -> bool:
        """Whether `net` is a residual network of the kit, whose channels stay apart but in its layers."""
        return net.folded and type(net.network) is ResNet and x.ndim == 4

    @torch.no_grad()
    def take(self, member: int) -> None:
        """Give `member` the weights that the network has now."""
        torch._foreach_copy_(self._members[member], list(self._single.values()))
        self._wide.pop("bfloat16", None)

    def logits(self, x: Tensor, precision: str = "float32") -> Tensor:
        """Logits [count * n, K] of inputs [count * n, C, H, W]: member i has the i-th n of them."""
        if precision not in self._wide:
            self._wide[precision] = lowered(self._wide["float32"])
        count, channels = self.count, x.shape[1]
        n = len(x) // count
        side_by_side = x.view(count, n, *x.shape[1:]).transpose(0, 1)
        side_by_side = side_by_side.reshape(n, count * channels, *x.shape[2:])
        out = self._wide[precision](side_by_side.contiguous(memory_format=torch.channels_last))
        return out.view(n, count, -1).transpose(0, 1).reshape(len(x), -1).to(x.dtype)


class _GroupedConv2d(nn.Module):
    def __init__(self, conv: FoldedConv2d, count: int):
        super().__init__()
        shape = (count * len(conv.weight), *conv.weight.shape[1:])
        weight = conv.weight.new_empty_strided(shape, channels_last_strides(shape))
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(conv.bias.new_empty(shape[0]), requires_grad=False)
        self.stride, self.padding, self.groups = conv.stride, conv.padding, count

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, self.weight, self.bias, self.stride, self.padding, (1, 1), self.groups)


class _Linears(nn.Module):
    """`count` linear layers on [n, count * F], to [n, count * K]."""

    def __init__(self, linear: nn.Linear, count: int):
        super().__init__()
        self.count = count
        self.weight, self.bias = (
            nn.Parameter(p.new_empty(count * len(p), *p.shape[1:]), requires_grad=False)
            for p in (linear.weight, linear.bias)
        )

    def forward(self, x: Tensor) -> Tensor:
        inputs = x.to(self.weight.dtype).view(len(x), self.count, -1).transpose(0, 1)
        matrices = self.weight.view(self.count, -1, self.weight.shape[1]).transpose(1, 2)
        out = torch.baddbmm(self.bias.view(self.count, 1, -1), inputs, matrices)
        return out.transpose(0, 1).reshape(len(x), -1)


def _widened(module: nn.Module, count: int) -> nn.Module:
    """A folded ResNet with `count` times the channels, in groups that do not meet."""
    wide = copy.deepcopy(module)
    for name, layer in list(wide.named_modules()):
        parent, _, key = name.rpartition(".")
        if isinstance(layer, FoldedConv2d):
            setattr(wide.get_submodule(parent), key, _GroupedConv2d(layer, count))
        elif isinstance(layer, nn.Linear):
            setattr(wide.get_submodule(parent), key, _Linears(layer, count))
        elif isinstance(layer, Whitening):
            layer.mean, layer.std = (t.repeat(1, count, 1, 1) for t in (layer.mean, layer.std))
    return wide
