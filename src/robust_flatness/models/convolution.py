"""Convolutions of few channels: a fast gradient with respect to images, a safe one to weights."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

#: Inputs with at most this many channels (images) take the gradient below.
FEW_CHANNELS = 4
#: oneDNN writes past its workspace in the gradient with respect to the weights of strided 1x1 convolutions
#: with fewer input channels than a vector register holds: 16 with AVX-512, 8 without (uxlfoundation/oneDNN,
#: issue 6035).
UNSAFE_CHANNELS = 16


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, stride, padding, dilation, groups) -> Tensor:
    """`F.conv2d` in the dtype of the weight, with gradients that are right for few channels."""
    return safe_conv2d(x.to(weight.dtype), weight, bias, stride, padding, dilation, groups)


def safe_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, stride, padding, dilation, groups) -> Tensor:
    """`F.conv2d`; strided 1x1 convolutions of few channels as one of stride 1 on the pixels they see."""
    pointwise = weight.shape[2:] == (1, 1) and padding in ((0, 0), "valid")
    if pointwise and weight.shape[1] < UNSAFE_CHANNELS and stride != (1, 1):
        x, stride = x[:, :, :: stride[0], :: stride[1]], (1, 1)
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def image_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """`conv2d` with dilation and groups 1, for inputs of few channels.

    On the CPU, the gradient with respect to the input is a convolution with as many output
    channels as the input has, and reaches a small part of the usual speed when these are 1 or 3.
    Pointwise ones stay with `conv2d`, which keeps to what is safe for them.
    """
    if x.device.type != "cpu" or weight.shape[2:] == (1, 1):
        return conv2d(x, weight, bias, stride, padding, (1, 1), 1)
    if torch.is_autocast_enabled("cpu"):  # which does not see into the function below
        weight = weight.to(torch.get_autocast_dtype("cpu"))
        bias = bias if bias is None else bias.to(weight.dtype)
    return _ImageConvolution.apply(x.to(weight.dtype), weight, bias, stride, padding)


class _ImageConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, stride, padding) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding, ctx.has_bias = stride, padding, bias is not None
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        x, weight = ctx.saved_tensors
        stride, padding = list(ctx.stride), list(ctx.padding)
        by_x = None
        if ctx.needs_input_grad[0]:
            by_x = _input_gradient(gradient, weight, x.shape[2:], ctx.stride, ctx.padding)
        mask = [False, ctx.needs_input_grad[1], ctx.has_bias and ctx.needs_input_grad[2]]
        _, by_weight, by_bias = (
            torch.ops.aten.convolution_backward(
                gradient, x, weight, [len(weight)], stride, padding, [1, 1], False, [0, 0], 1, mask
            )
            if any(mask)
            else (None, None, None)
        )
        return by_x, by_weight, by_bias, None, None


def _input_gradient(
    gradient: Tensor, weight: Tensor, size: Sequence[int], stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """The gradient [n, C, *size] from that of the output, [n, O, H', W'].

    One matrix product gives what each output position sends through each weight,
    [C, kh, kw, n, H', W'], and kh * kw shifted additions collect it.
    """
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


def channels_last_strides(shape: Sequence[int]) -> tuple[int, int, int, int]:
    """Strides of a channels-last tensor of four dimensions."""
    _, channels, height, width = shape
    return channels * height * width, 1, channels * width, channels
