"""Several networks of one architecture side by side, as one with grouped convolutions."""

import operator

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from robust_flatness.models.convolution import conv2d, image_conv2d
from robust_flatness.models.inference import InferenceModel, channels_last_strides
from robust_flatness.models.tracing import linear, spatial_mean

#: What keeps channels apart, so that channels of several networks can lie side by side.
_FUNCTIONS = {
    F.relu,
    operator.add,
    operator.sub,
    operator.mul,
    operator.truediv,
    torch.relu,
    torch.relu_,
    spatial_mean,
}
_METHODS = {"clamp", "relu"}
_LAYERS = (
    nn.ReLU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Tanh,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Flatten,
)


class UnsupportedError(Exception):
    """The network does something that may mix channels."""


class Ensemble:
    """`count` networks with weights of their own, each on its own share of the inputs.

    Small networks on small batches spend their time on calls, not on numbers; side by side they
    make as many calls as one. The weights of member i are those that `net` has when `take(i)` is
    called.

    Raises
    ------
    UnsupportedError
        If the network cannot be traced, or mixes channels in other ways than by convolutions and
        linear layers.
    """

    def __init__(self, net: InferenceModel, count: int, example: Tensor):
        trace = net.trace
        if trace is None or not trace.complete or example.ndim != 4:
            raise UnsupportedError
        self.net, self.count = net, count
        self._run = _Widening(trace.module, count).transform().forward
        self._weights = [_repeated(weight, count) for weight in net.weights]
        self._low: list[Tensor] | None = None
        self._members = [[w.chunk(count)[i] for w in self._weights] for i in range(count)]
        inputs = example[torch.arange(count) % len(example)]
        expected = net.logits(inputs).detach()
        for member in range(count):
            self.take(member)
        with torch.no_grad():
            difference = (self.logits(inputs) - expected).abs().amax()
        if not difference <= 1e3 * torch.finfo(expected.dtype).eps * expected.abs().amax().clamp(min=1):
            raise UnsupportedError

    @torch.no_grad()
    def take(self, member: int) -> None:
        """Give `member` the weights that the network has now."""
        torch._foreach_copy_(self._members[member], self.net.weights)
        self._low = None

    def logits(self, x: Tensor, precision: str = "float32") -> Tensor:
        """Logits [count * n, K] of inputs [count * n, C, H, W]: member i has the i-th n of them."""
        count = self.count
        n, shape = len(x) // count, x.shape[1:]
        side_by_side = x.view(count, n, *shape).transpose(0, 1).reshape(n, count * shape[0], *shape[1:])
        side_by_side = side_by_side.contiguous(memory_format=torch.channels_last)
        weights = self._weights
        if precision == "bfloat16":
            if self._low is None:
                self._low = [weight.to(torch.bfloat16) for weight in self._weights]
            weights = self._low
        out = self._run(side_by_side, *weights)
        return out.view(n, count, -1).transpose(0, 1).reshape(len(x), -1).to(x.dtype)


class _Widening(fx.Transformer):
    """Rewrites the function of one network as that of `count` side by side."""

    def __init__(self, module: fx.GraphModule, count: int):
        super().__init__(module)
        self.count = count

    def call_function(self, target, args, kwargs):
        if target is conv2d:
            *args, groups = args
            return super().call_function(conv2d, (*args, groups * self.count), kwargs)
        if target is image_conv2d:
            x, weight, bias, stride, padding = args
            options = (stride, padding, (1, 1), self.count)
            return super().call_function(conv2d, (x, weight, bias, *options), kwargs)
        if target is linear:
            return super().call_function(_linears, (*args, self.count), kwargs)
        if target not in _FUNCTIONS:
            raise UnsupportedError
        return super().call_function(target, args, kwargs)

    def call_method(self, target, args, kwargs):
        if target not in _METHODS:
            raise UnsupportedError
        return super().call_method(target, args, kwargs)

    def call_module(self, target, args, kwargs):
        if type(self.submodules[target]) not in _LAYERS:
            raise UnsupportedError
        return super().call_module(target, args, kwargs)

    def get_attr(self, target, args, kwargs):
        value = operator.attrgetter(target)(self.module)
        if value.ndim == 0:
            return super().get_attr(target, args, kwargs)
        if value.ndim != 4 or value.shape[0] != 1 or value.shape[2:] != (1, 1):
            raise UnsupportedError
        return super().get_attr(target, args, kwargs).repeat(1, self.count, 1, 1)


def _linears(x: Tensor, weight: Tensor, bias: Tensor | None, count: int) -> Tensor:
    """`count` linear layers on [n, count * F], to [n, count * K]."""
    inputs = x.to(weight.dtype).view(len(x), count, -1).transpose(0, 1)
    matrices = weight.view(count, -1, weight.shape[1]).transpose(1, 2)
    out = inputs @ matrices if bias is None else torch.baddbmm(bias.view(count, 1, -1), inputs, matrices)
    return out.transpose(0, 1).reshape(len(x), -1)


def _repeated(weight: Tensor, count: int) -> Tensor:
    """Room for `count` times `weight` along its first dimension."""
    shape = (count * weight.shape[0], *weight.shape[1:])
    strides = channels_last_strides(shape) if weight.ndim == 4 else None
    if strides is None:
        return weight.new_empty(shape)
    return torch.empty_strided(shape, strides, dtype=weight.dtype, device=weight.device)
