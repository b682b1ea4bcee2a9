"""A network in evaluation mode as a function of its input and its weights, traced once."""

import copy
import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from robust_flatness.models.convolution import FEW_CHANNELS, conv2d, image_conv2d
from robust_flatness.models.layers import CenteredBatchNorm2d, SafeConv2d

#: Layers that are the identity in evaluation mode.
INERT = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
#: Batch norms that can be folded; a subclass may compute something else.
FOLDABLE = (nn.BatchNorm2d, CenteredBatchNorm2d)
CONVOLUTIONS = (nn.Conv2d, SafeConv2d)


@dataclass(frozen=True)
class Fold:
    """Names of a convolution and of the batch norm that alone receives its output."""

    conv: str
    norm: str


@dataclass(frozen=True)
class Trace:
    """A network as a function: `run(x, *weights)`, the forward of `module`.

    `inputs` tells what the weights are, in their order: the name of a parameter or, for a folded
    convolution, `(fold, "weight")` or `(fold, "bias")`. Parameters that are no input stay in the
    network that was traced; `complete` tells that there are none.
    """

    module: fx.GraphModule
    inputs: tuple[str | tuple[Fold, str], ...]
    complete: bool

    @cached_property
    def run(self) -> Callable[..., Tensor]:
        return self.module.forward

    @property
    def folds(self) -> list[Fold]:
        return [fold for fold, key in self.folded_inputs if key == "weight"]

    @property
    def folded_inputs(self) -> list[tuple[Fold, str]]:
        return [source for source in self.inputs if not isinstance(source, str)]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear` in the dtype of the weight."""
    return F.linear(x.to(weight.dtype), weight, bias)


def trace(network: nn.Module) -> Trace | None:
    """Trace `network`, which must be in evaluation mode; None where that cannot be done.

    Convolutions (2-D, zero padding), linear layers and ReLUs become plain functions, inert layers
    vanish, a batch norm with running statistics is folded into the convolution before it where
    nothing else uses that one's output. Everything else is called as it is. Not traced are
    networks whose control flow depends on the input, and those with hooks or parametrisations,
    which a function of the weights would leave out.
    """
    if any(
        m._forward_hooks or m._forward_pre_hooks or hasattr(m, "parametrizations") for m in network.modules()
    ):
        return None
    root = _InputOnly(network)
    try:
        graph = _Tracer().trace(root)
    except Exception:  # whatever a user's forward raises when called with a proxy
        return None
    return _Rewriter(root, graph).rewrite()


def spatial_mean(x: Tensor, keep: bool) -> Tensor:
    """Mean over height and width: [n, C], or [n, C, 1, 1] if `keep`.

    In channels-last layout the gradient stays in that layout, which `x.mean((2, 3))` loses.
    """
    if x.ndim != 4 or not x.is_contiguous(memory_format=torch.channels_last):
        return x.mean(dim=(2, 3), keepdim=keep)
    mean = x.permute(0, 2, 3, 1).flatten(1, 2).mean(dim=1)
    return mean[:, :, None, None] if keep else mean


def _is_global_pooling(module: nn.Module) -> bool:
    return type(module) is nn.AdaptiveAvgPool2d and module.output_size in (1, (1, 1))


def _over_space(node: fx.Node) -> bool:
    """Whether a call of `mean` is `x.mean(dim=(2, 3))` or `x.mean((2, 3))`."""
    dims = node.kwargs.get("dim", node.args[1] if len(node.args) == 2 else None)
    return len(node.args) + len(node.kwargs) == 2 and isinstance(dims, list | tuple) and tuple(dims) == (2, 3)


class _InputOnly(nn.Module):
    """Calls a network with its input alone: other arguments of its forward keep their defaults."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in (*FOLDABLE, *CONVOLUTIONS) or super().is_leaf_module(m, module_qualified_name)


class _Rewriter:
    """Rewrites the graph of a network as a function of its weights."""

    def __init__(self, root: _InputOnly, graph: fx.Graph):
        self.root, self.graph = root, graph
        self.modules = dict(root.named_modules())
        self.inputs: list[str | tuple[Fold, str]] = []
        self.last_input = next(node for node in graph.nodes if node.op == "placeholder")

    def rewrite(self) -> Trace:
        self._replace_all(INERT, lambda node: node.args[0])
        self.calls = Counter(node.target for node in self._called())
        self.owners = Counter(
            id(p) for module in self.modules.values() for p in module._parameters.values() if p is not None
        )
        self._replace_all((nn.Linear,), self._linear)
        self._replace_all(CONVOLUTIONS, self._conv2d)
        self._pool_first()
        self._spatial_means()
        self._replace_all((nn.ReLU,), self._relu)
        self.graph.lint()
        module = fx.GraphModule(self.root, self.graph)
        return Trace(module, tuple(self.inputs), complete=not self._parameters_left())

    def _called(self) -> list[fx.Node]:
        return [node for node in self.graph.nodes if node.op == "call_module"]

    def _replace_all(self, types: tuple[type, ...], replacement: Callable[[fx.Node], fx.Node | None]) -> None:
        for node in self._called():
            if type(self.modules[node.target]) in types:
                new = replacement(node)
                if new is not None:
                    node.replace_all_uses_with(new)
                    self.graph.erase_node(node)

    def _call(self, node: fx.Node, function: Callable, *args) -> fx.Node:
        with self.graph.inserting_before(node):
            return self.graph.call_function(function, args)

    def _input(self, source: str | tuple[Fold, str]) -> fx.Node:
        self.inputs.append(source)
        with self.graph.inserting_after(self.last_input):
            self.last_input = self.graph.placeholder(f"weight_{len(self.inputs)}")
        return self.last_input

    def _parameter_inputs(self, node: fx.Node) -> list[fx.Node | None]:
        module = self.modules[node.target]
        return [
            self._input(_inside(f"{node.target}.{key}")) if getattr(module, key) is not None else None
            for key in ("weight", "bias")
        ]

    def _alone(self, node: fx.Node) -> bool:
        """Whether a layer is called once and shares no parameter with another one."""
        parameters = self.modules[node.target]._parameters.values()
        return self.calls[node.target] == 1 and all(
            self.owners[id(p)] == 1 for p in parameters if p is not None
        )

    def _linear(self, node: fx.Node) -> fx.Node | None:
        if not self._alone(node):
            return None
        return self._call(node, linear, node.args[0], *self._parameter_inputs(node))

    def _conv2d(self, node: fx.Node) -> fx.Node | None:
        conv = self.modules[node.target]
        if conv.padding_mode != "zeros" or not self._alone(node):
            return None
        norm = self._norm_after(node)
        if norm is None:
            weight, bias = self._parameter_inputs(node)
        else:
            fold = Fold(_inside(node.target), _inside(norm.target))
            weight, bias = self._input((fold, "weight")), self._input((fold, "bias"))
            norm.replace_all_uses_with(node)
            self.graph.erase_node(norm)
        simple = conv.dilation == (1, 1) and conv.groups == 1 and not isinstance(conv.padding, str)
        if simple and conv.in_channels <= FEW_CHANNELS:
            return self._call(node, image_conv2d, node.args[0], weight, bias, conv.stride, conv.padding)
        options = (conv.stride, conv.padding, conv.dilation, conv.groups)
        return self._call(node, conv2d, node.args[0], weight, bias, *options)

    def _pool_first(self) -> None:
        """ReLU and max pooling commute, in value and gradient: pool first, there is less to rectify."""
        for pool in self._called():
            relu = pool.args[0]
            if (
                type(self.modules[pool.target]) is nn.MaxPool2d
                and relu.op == "call_module"
                and type(self.modules[relu.target]) is nn.ReLU
                and len(relu.users) == 1
            ):
                pool.replace_all_uses_with(relu)
                pool.args, relu.args = relu.args, (pool,)
                pool.append(relu)

    def _spatial_means(self) -> None:
        """Global average pooling, as a layer or by `mean`, in the layout of the activations."""
        for node in list(self.graph.nodes):
            pooled = node.op == "call_module" and _is_global_pooling(self.modules[node.target])
            averaged = node.op == "call_method" and node.target == "mean" and _over_space(node)
            if pooled or averaged:
                new = self._call(node, spatial_mean, node.args[0], pooled)
                node.replace_all_uses_with(new)
                self.graph.erase_node(node)

    def _relu(self, node: fx.Node) -> fx.Node:
        """In place where its input is fresh, used by nothing else and no gradient's ingredient."""
        source = node.args[0]
        fresh = source.op == "call_function" and source.target in (conv2d, image_conv2d, linear, operator.add)
        function = torch.relu_ if fresh and len(source.users) == 1 else torch.relu
        return self._call(node, function, source)

    def _norm_after(self, node: fx.Node) -> fx.Node | None:
        user = next(iter(node.users)) if len(node.users) == 1 else None
        if user is None or user.op != "call_module" or type(self.modules[user.target]) not in FOLDABLE:
            return None
        has_statistics = self.modules[user.target].running_mean is not None
        return user if has_statistics and self._alone(user) else None

    def _parameters_left(self) -> bool:
        parameters = {f"network.{name}" for name, _ in self.root.network.named_parameters()}
        return any(
            any(True for _ in self.modules[node.target].parameters())
            if node.op == "call_module"
            else node.op == "get_attr" and node.target in parameters
            for node in self.graph.nodes
        )


def _inside(target: str) -> str:
    """The name within the network of a layer's name in the trace; that of the network itself is ""."""
    return target.removeprefix("network").removeprefix(".")


def evaluation_copy(model: nn.Module) -> nn.Module:
    """A deep copy of `model` in evaluation mode with frozen parameters and no gradients."""
    return copy.deepcopy(model).eval().requires_grad_(False)
