"""Batch norms of the kit's own networks, folded into the convolutions before them."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from robust_flatness.models.convolution import FEW_CHANNELS, conv2d, image_conv2d
from robust_flatness.models.layers import CenteredBatchNorm2d, SafeConv2d

#: Names of a convolution and of the batch norm that alone receives its output.
Pair = tuple[str, str]


def pairs_of(network: nn.Module) -> list[Pair]:
    """The pairs that a network of the kit says it has (`folds`); none of any other module.

    A subclass may compute something else, and so may layers that were exchanged, have hooks or
    parametrisations: then there are none either.
    """
    if "folds" not in vars(type(network)):
        return []
    modules = list(network.modules())
    if any(m._forward_hooks or m._forward_pre_hooks or hasattr(m, "parametrizations") for m in modules):
        return []
    pairs = network.folds()
    for conv, norm in pairs:
        if type(network.get_submodule(conv)) not in (nn.Conv2d, SafeConv2d):
            return []
        if type(network.get_submodule(norm)) is not CenteredBatchNorm2d:
            return []
    return pairs


class FoldedConv2d(nn.Module):
    """A convolution and a batch norm as one convolution, in the dtype of its weight."""

    def __init__(self, conv: nn.Conv2d, weight: Tensor, bias: Tensor):
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)
        self.stride, self.padding = conv.stride, conv.padding
        self.few = conv.in_channels <= FEW_CHANNELS

    def forward(self, x: Tensor) -> Tensor:
        if self.few:
            return image_conv2d(x, self.weight, self.bias, self.stride, self.padding)
        return conv2d(x, self.weight, self.bias, self.stride, self.padding, (1, 1), 1)


class Folded:
    r"""The function of `network`, whose `pairs` are folded, and its parameters.

    A batch norm with scale :math:`\gamma`, shift :math:`\beta` and running statistics
    :math:`\mu, \sigma^2` after a convolution :math:`(W, b)` in evaluation mode makes, with it,
    one convolution: :math:`W'_c = a_c W_c`, :math:`b'_c = a_c (b_c - \mu_c) + \beta_c` with
    :math:`a_c = \gamma_c / \sqrt{\sigma_c^2 + \epsilon}`.

    Statistics of all folded batch norms lie side by side in one buffer each, so that folding takes
    a few operations for all of them and one for each convolution. The tensors of `network` become
    views of these buffers.

    Attributes
    ----------
    module
        Computes what `network` does. Folded weights and biases have the names of the
        convolution's; everything else is shared with `network`.
    factor
        a_c by the name of a folded weight or bias, in a shape to multiply it with.
    norms
        Names of the tensors on which the factors depend.
    """

    def __init__(self, network: nn.Module, pairs: list[Pair]):
        get = network.get_submodule
        convs, norms = ([get(name) for name in names] for names in zip(*pairs, strict=True))
        sizes = [norm.num_features for norm in norms]
        self._rows = norms[0].running_mean.new_zeros(9, sum(sizes)).unbind()
        mean, var, gamma, beta, conv_bias, eps, scale, _, folded_bias = self._rows
        self.factor: dict[str, Tensor] = {}
        self._products: list[tuple[Tensor, Tensor, Tensor]] = []
        replaced: dict[str, nn.Module] = {}
        start = 0
        for (name, norm_name), conv, norm, size in zip(pairs, convs, norms, sizes, strict=True):
            part = slice(start, start + size)
            start += size
            for row, module, key in (
                (mean, norm, "running_mean"),
                (var, norm, "running_var"),
                (gamma, norm, "weight"),
                (beta, norm, "bias"),
                (conv_bias, conv, "bias"),
            ):
                tensor = getattr(module, key)
                if tensor is not None:
                    row[part] = tensor.detach()
                    tensor.data = row[part]
            eps[part] = norm.eps
            weight = torch.empty_like(conv.weight)
            # detached, or making one bias require gradients would make the whole buffer
            replaced[name] = FoldedConv2d(conv, weight, folded_bias[part].detach())
            replaced[norm_name] = nn.Identity()
            self.factor |= {f"{name}.weight": scale[part].view(-1, 1, 1, 1), f"{name}.bias": scale[part]}
            self._products.append((conv.weight.detach(), scale[part].view(-1, 1, 1, 1), weight))
        self.norms = {
            f"{name}.{key}" for _, name in pairs for key in ("weight", "bias", "running_mean", "running_var")
        }
        self.module = _with(network, replaced)
        self.fold()

    @torch.no_grad()
    def fold(self, changed: Iterable[str] | None = None) -> None:
        """Fold again, after the tensors named (None: all) have changed."""
        mean, var, gamma, beta, conv_bias, eps, scale, shift, folded_bias = self._rows
        if changed is None or not self.norms.isdisjoint(changed):
            torch.add(var, eps, out=scale).rsqrt_().mul_(gamma + 1)
            torch.addcmul(beta, mean, scale, value=-1, out=shift)
        torch.addcmul(shift, conv_bias, scale, out=folded_bias)
        for weight, factor, out in self._products:
            torch.mul(weight, factor, out=out)


def _with(network: nn.Module, replaced: dict[str, nn.Module]) -> nn.Module:
    """A copy of `network` with other layers in some places, that shares all other tensors."""
    shared = {id(t): t for t in (*network.parameters(), *network.buffers())}
    shared |= {id(network.get_submodule(name)): layer for name, layer in replaced.items()}
    module = copy.deepcopy(network, shared)
    for layer in module.modules():
        if type(layer) is nn.ReLU:
            layer.inplace = True  # its input is a convolution's output or a sum, which nothing else uses
    return module


def lowered(module: nn.Module) -> nn.Module:
    """A copy of `module` with the weights of convolutions and linear layers in bfloat16; layers of the
    kit compute in the dtype of their weights."""
    low = copy.deepcopy(module)
    for name, layer in list(low.named_modules()):
        if type(layer) is nn.Linear:
            parent, _, key = name.rpartition(".")
            layer = LowLinear(layer)
            setattr(low.get_submodule(parent), key, layer)
        if not isinstance(layer, nn.BatchNorm1d):
            for parameter in layer.parameters(recurse=False):
                parameter.data = parameter.data.to(torch.bfloat16)
    return low


class LowLinear(nn.Module):
    """A linear layer in the dtype of its weight."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x.to(self.weight.dtype), self.weight, self.bias)
