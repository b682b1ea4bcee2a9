"""Layers of the paper's networks, and convolutions with few input channels: a fast gradient with respect to
images, a safe one with respect to weights."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS = {"relu": nn.ReLU, "mish": nn.Mish, "silu": nn.SiLU, "gelu": nn.GELU}
#: Largest number of input channels for which `_ImageConvolution` is used.
FEW_CHANNELS = 4
#: oneDNN writes past its workspace in the gradient with respect to the weights of strided 1x1 convolutions
#: with fewer input channels than a vector register holds: 16 with AVX-512, 8 without (uxlfoundation/oneDNN,
#: issue 6035).
UNSAFE_CHANNELS = 16


def inside_transform() -> bool:
    """Return whether a transform of torch.func (vmap, grad, ...) is active, where custom gradients, hooks and
    queries of the memory format are not available."""
    return torch._C._are_functorch_transforms_active()


class _ImageConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, stride, padding) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        x, weight = ctx.saved_tensors
        by_x = by_weight = by_bias = None
        if ctx.needs_input_grad[0]:
            by_x = _input_gradient(gradient, weight, x.shape[2:], ctx.stride, ctx.padding)
        if any(mask := [False, *ctx.needs_input_grad[1:3]]):
            settings = ([len(weight)], ctx.stride, ctx.padding, (1, 1), False, (0, 0), 1, mask)
            _, by_weight, by_bias = torch.ops.aten.convolution_backward(gradient, x, weight, *settings)
        return by_x, by_weight, by_bias, None, None


def _input_gradient(
    gradient: Tensor, weight: Tensor, size: Sequence[int], stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Compute the gradient [n, C, *size] from that of the output, [n, O, H', W']: one matrix product gives
    the contribution of each output position through each weight, kh * kw shifted additions sum them."""
    n, outputs, height, width = gradient.shape
    _, channels, kh, kw = weight.shape
    spread = weight.permute(2, 3, 1, 0).reshape(-1, outputs)
    sent = spread @ gradient.permute(0, 2, 3, 1).reshape(-1, outputs).t()
    sent = sent.float() if sent.dtype == torch.bfloat16 else sent
    sent = sent.view(kh, kw, channels, n, height, width)
    (down, right), (top, left) = stride, padding
    collected = sent.new_zeros(channels, n, size[0] + 2 * top, size[1] + 2 * left)
    last_row, last_column = down * (height - 1) + 1, right * (width - 1) + 1
    for i in range(kh):
        for j in range(kw):
            collected[:, :, i : i + last_row : down, j : j + last_column : right].add_(sent[i, j])
    inner = collected[:, :, top : top + size[0], left : left + size[1]]
    return inner.transpose(0, 1).to(gradient.dtype)


def channels_last(weight: Tensor) -> Tensor:
    """Return `weight` [O, C, H, W] with channels-last strides, copied only if the strides differ."""
    # `contiguous` leaves slow strides of one input channel or size 1 x 1, which are valid for both layouts
    _, channels, height, width = weight.shape
    if weight.stride() == (channels * height * width, 1, channels * width, channels):
        return weight
    return weight.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2)


#: Backward operations (means over pixels, flattenings) that return gradients in contiguous layout whatever
#: that of their inputs; the following operation, such as a ReLU, is then up to fifty times as slow.
CONTIGUOUS_BACKWARD = ("MeanBackward1", "ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0")


def keep_channels_last(output: Tensor) -> None:
    """Register hooks that keep gradients between `output` and the last convolutions channels-last."""
    for node in graph_nodes(output.grad_fn, stop="ConvolutionBackward0"):
        if node.name() in CONTIGUOUS_BACKWARD and len(node._saved_self_sym_sizes) == 4:
            node.register_hook(_to_channels_last)


def graph_nodes(root, stop: str = "") -> Iterator:
    """Yield the nodes of an autograd graph from `root` on, stopping at nodes named `stop`."""
    nodes, seen = [root], {None}
    while nodes:
        node = nodes.pop()
        if node not in seen and node.name() != stop:
            seen.add(node)
            yield node
            nodes += [following for following, _ in node.next_functions]


def _to_channels_last(gradients: tuple[Tensor | None, ...], _) -> tuple[Tensor | None, ...]:
    layout = {"memory_format": torch.channels_last}
    return tuple(g if g is None or g.ndim != 4 else g.contiguous(**layout) for g in gradients)


class Whitening(nn.Module):
    """Clamp to [0, 1], subtract the channel means, divide by the channel standard deviations, all buffers."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(list(mean)).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(list(std)).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x.clamp(0, 1) - self.mean) / self.std


class SafeConv2d(nn.Conv2d):
    """`nn.Conv2d` with correct weight gradients for strided 1x1 convolutions of few channels, which run with
    stride 1 on subsampled pixels. Arguments have torch's names, for calls by keyword."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        pointwise = self.kernel_size == (1, 1) and self.padding in ((0, 0), "valid")
        if pointwise and self.stride != (1, 1) and weight.shape[1] < UNSAFE_CHANNELS:
            input = input[..., :: self.stride[0], :: self.stride[1]]
            return F.conv2d(input, weight, bias, groups=self.groups)
        return super()._conv_forward(input, weight, bias)


class FoldedConv2d(SafeConv2d):
    """A convolution and a batch norm as one convolution, in the dtype of its weight; on the CPU with a fast
    gradient with respect to inputs of few channels."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)
        few = self.weight.shape[1] <= FEW_CHANNELS and self.groups == 1 and self.kernel_size != (1, 1)
        if few and x.device.type == "cpu" and not inside_transform():
            return _ImageConvolution.apply(x, self.weight, self.bias, self.stride, self.padding)
        return super().forward(x)


class SpatialMean(nn.Module):
    """Mean over height and width, [n, C, H, W] to [n, C], whose gradient stays in channels-last layout."""

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

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.num_batches_tracked.add_(1)
        factor = self.momentum
        if factor is None:  # cumulative average, as torch.optim.swa_utils.update_bn asks for
            factor = 1.0 / float(self.num_batches_tracked) if self.training else 0.0
        statistics = self.running_mean, self.running_var
        return F.batch_norm(x, *statistics, 1 + self.weight, self.bias, self.training, factor, self.eps)
