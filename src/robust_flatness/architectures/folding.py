"""Folding of batch norms into convolutions in the built-in networks, and ensembles of folded networks."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robust_flatness.architectures import layers
from robust_flatness.architectures.resnet import ResNet
from robust_flatness.architectures.stateless import Stateless


def foldable_pairs(network: nn.Module) -> list[tuple[str, str]]:
    """Return the names of each convolution and the batch norm after it, its only consumer, in the evaluation
    copy of a built-in network whose class is `foldable`. Empty for subclasses, and for networks with hooks,
    parametrizations or replaced layers, which may compute something else."""
    if "foldable" not in vars(type(network)):
        return []
    modules = dict(network.named_modules())
    for m in modules.values():
        if m._forward_hooks or m._forward_pre_hooks or hasattr(m, "parametrizations"):
            return []
    names = [name for name, m in modules.items() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    pairs = list(zip(names[::2], names[1::2], strict=False))
    kinds = {(type(modules[conv]), type(modules[norm])) for conv, norm in pairs}
    return pairs if kinds <= {(layers.SafeConv2d, layers.CenteredBatchNorm2d)} and len(names) % 2 == 0 else []


class Folding:
    r"""The tensors of a network whose batch norms are folded, and the module that computes with them.

    A batch norm with scale :math:`\gamma`, shift :math:`\beta` and running statistics :math:`\mu, \sigma^2`
    after a convolution :math:`(W, b)` in evaluation mode makes, with it, one convolution: :math:`W'_c = a_c
    W_c`, :math:`b'_c = a_c (b_c - \mu_c) + \beta_c` with :math:`a_c = \gamma_c / \sqrt{\sigma_c^2 +
    \epsilon}`.

    `function` is the folded network: folded weights and biases have the names of the convolution's, and
    convolutions compute in the dtype of their weights. `wide` holds functions that compute several such
    networks side by side, by their number (see `Ensemble`).
    """

    def __init__(self, network: nn.Module, pairs: list[tuple[str, str]]):
        self.pairs = pairs
        norms = [network.get_submodule(norm) for _, norm in pairs]
        self._sizes = [norm.num_features for norm in norms]
        self._eps = torch.cat([torch.full_like(norm.running_var, norm.eps) for norm in norms])
        keys = ("weight", "bias", "running_mean", "running_var")
        self._of_norms = [[f"{norm}.{key}" for _, norm in pairs] for key in keys]
        self._no_bias = torch.zeros_like(self._eps).split(self._sizes)
        self.function = Stateless(_folded_module(network, pairs))
        self.wide: dict[int, Stateless] = {}
        modules, low = self.function.module.named_modules(), layers.FoldedConv2d | nn.Linear
        self._low = {f"{n}.{key}" for n, m in modules if isinstance(m, low) for key in ("weight", "bias")}
        folded = {f"{conv}.{key}" for conv, _ in pairs for key in ("weight", "bias")}
        own = self.function.own.items()
        self._unfolded = [name for name, t in own if name not in folded and t.is_floating_point()]

    def fold(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the tensors of `function` from those of the network; differentiable by them."""
        gamma, beta, mean, var = (torch.cat([values[n] for n in names]) for names in self._of_norms)
        scales = (var + self._eps).rsqrt() * (gamma + 1)
        pairs = zip(self.pairs, self._no_bias, strict=True)
        biases = torch.cat([values.get(f"{conv}.bias", zero) for (conv, _), zero in pairs])
        biases = torch.addcmul(torch.addcmul(beta, mean, scales, value=-1), biases, scales)
        folded = {name: values[name] for name in self._unfolded}
        parts = scales.split(self._sizes), biases.split(self._sizes)
        for (conv, _), scale, bias in zip(self.pairs, *parts, strict=True):
            weight = values[f"{conv}.weight"] * scale.view(-1, 1, 1, 1)
            folded[f"{conv}.weight"] = layers.channels_last(weight)
            folded[f"{conv}.bias"] = bias
        return folded

    def lowered(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert the weights of convolutions and linear layers to bfloat16."""
        return {name: t.to(torch.bfloat16) if name in self._low else t for name, t in tensors.items()}


def _folded_module(network: nn.Module, pairs: list[tuple[str, str]]) -> nn.Module:
    """Return a copy of `network` with folded layers that shares all other tensors with it."""
    module = copy.deepcopy(network, {id(t): t for t in (*network.parameters(), *network.buffers())})
    for conv, norm in pairs:
        layer = module.get_submodule(conv)
        layer.__class__ = layers.FoldedConv2d
        layer.weight = nn.Parameter(torch.empty_like(layer.weight), requires_grad=False)
        layer.bias = nn.Parameter(layer.weight.new_empty(len(layer.weight)), requires_grad=False)
        module.set_submodule(norm, nn.Identity())
    for layer in module.modules():
        if type(layer) is nn.ReLU:
            layer.inplace = True  # its input is a convolution's output or a sum, which nothing else uses
    return module


class Ensemble:
    """Networks with different weights, each applied to its own share of a batch, in as many calls as one:
    their overhead dominates in small networks on small batches. `networks` are views `net.at(weights)` of
    one `robust_flatness.network.Network` for which `fits` holds."""

    def __init__(self, networks: Sequence[Any]):
        self._folding, self.count = networks[0].folding, len(networks)
        if self.count not in self._folding.wide:
            self._folding.function.put({})  # a copy has the module's own parameters
            wide = Stateless(_widened(self._folding.function.module, self.count))
            self._folding.wide[self.count] = wide
        self._function = self._folding.wide[self.count]
        members = [network.tensors() for network in networks]
        names = [name for name, _ in self._function.module.named_parameters()]
        joined = {name: torch.cat([tensors[name] for tensors in members]) for name in names}
        joined = {name: layers.channels_last(t) if t.ndim == 4 else t for name, t in joined.items()}
        self._tensors = {"float32": joined}

    @staticmethod
    def fits(net: Any, x: Tensor) -> bool:
        """Return whether `net` is a `ResNet`, which mixes channels only in convolutions and linear layers."""
        return net.folding is not None and type(net.module) is ResNet and x.ndim == 4

    def logits(self, x: Tensor, precision: str = "float32") -> Tensor:
        """Return logits [count * n, K] of inputs [count * n, C, H, W]: member i has the i-th n of them."""
        if precision not in self._tensors:
            self._tensors[precision] = self._folding.lowered(self._tensors["float32"])
        side_by_side = x.unflatten(0, (self.count, -1)).transpose(0, 1).flatten(1, 2)
        side_by_side = side_by_side.contiguous(memory_format=torch.channels_last)
        out = self._function(self._tensors[precision], side_by_side).unflatten(1, (self.count, -1))
        return out.transpose(0, 1).flatten(0, 1).to(x.dtype)


class _Linears(nn.Module):
    """`count` linear layers on [n, count * F], to [n, count * K]."""

    def __init__(self, linear: nn.Linear, count: int):
        super().__init__()
        self.count, self.weight, self.bias = count, linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        inputs = x.unflatten(1, (self.count, -1)).transpose(0, 1)
        matrices = self.weight.unflatten(0, (self.count, -1)).transpose(1, 2)
        return torch.baddbmm(self.bias.view(self.count, 1, -1), inputs, matrices).transpose(0, 1).flatten(1)


def _widened(module: nn.Module, count: int) -> nn.Module:
    """Return a folded ResNet with `count` times the channels, in groups, for weights to be swapped in."""
    wide = copy.deepcopy(module)
    for name, layer in list(wide.named_modules()):
        if isinstance(layer, layers.FoldedConv2d):
            layer.groups = count
        elif isinstance(layer, nn.Linear):
            wide.set_submodule(name, _Linears(layer, count))
        elif isinstance(layer, layers.Whitening):
            layer.mean, layer.std = (t.repeat(1, count, 1, 1) for t in (layer.mean, layer.std))
    return wide
