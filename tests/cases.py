"""Networks drawn at random: layers, wrappers, dtypes and odd forwards, as people combine them.

`draw(seed)` makes the same network each time. Weights that are no part of the neighbourhood
(normalisation, frozen ones) are known from how it was made.
"""

import random
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

CLASSES = 4


class Swish(torch.autograd.Function):
    """A function with a derivative of its own, and no forward mode."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        s = x.sigmoid()
        return gradient * (s * (1 + x * (1 - s)))


class Call(nn.Module):
    """A function as a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Residual(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return x + self.body(x)


class Twice(nn.Module):
    """One layer in two places."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(self.layer(x).tanh())


class Tied(nn.Module):
    """A weight that is used transposed, too."""

    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size, size) / size**0.5)
        self.there, self.back = nn.Linear(size, size), nn.Linear(size, size, bias=False)
        self.back.weight = self.there.weight

    def forward(self, x):
        return self.back(self.there(x).tanh()) + F.linear(F.linear(x, self.weight), self.weight.t())


class ByTable(nn.Module):
    """Weights reached without attribute access, and transformed before use."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / inputs**0.5)
        self.shift = nn.Parameter(torch.randn(outputs) / 5)

    def forward(self, x):
        first, second = list(self.parameters())
        return F.linear(x, self._parameters["weight"] * 1.5 + 0 * first, second)


class OwnNorm(nn.Module):
    """Parameters of a normalisation in a layer of another name."""

    def __init__(self, size):
        super().__init__()
        self.linear = nn.Linear(size, size)
        self.gain = nn.Parameter(torch.randn(size) / 5)

    def forward(self, x):
        return F.layer_norm(self.linear(x), x.shape[-1:], 1 + self.gain)


class Keeping(nn.Module):
    """Keeps the activations of its last call."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        self.kept = self.layer(x)
        return self.kept


class Keyword(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(input=x)


class Checkpointed(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return checkpoint(self.layer, x, use_reentrant=False)


class Unpooled(nn.Module):
    """Pooling with indices, and back."""

    def __init__(self):
        super().__init__()
        self.pool, self.back = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

    def forward(self, x):
        pooled, indices = self.pool(x)
        return self.back(pooled, indices, output_size=x.shape)


class Recurrent(nn.Module):
    def __init__(self, kind, inputs, size):
        super().__init__()
        self.layer = kind(inputs, size, batch_first=True)

    def forward(self, x):
        return self.layer(x)[0][:, -1]


class Standardised(nn.Module):
    """Changes its input in place."""

    def forward(self, x):
        return x.sub_(0.4).div_(0.3)


@dataclass
class Case:
    """A network and what is known of it."""

    seed: int
    shape: tuple[int, ...]
    model: nn.Module
    parts: list[str] = field(default_factory=list)
    left_out: set[int] = field(default_factory=set)
    dtype: torch.dtype = torch.float64

    @property
    def names(self) -> list[str]:
        """The parameters that are perturbed."""
        return [n for n, p in self.model.named_parameters() if id(p) not in self.left_out]

    def inputs(self, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        g = torch.Generator().manual_seed(self.seed)
        x = torch.rand(n, *self.shape, generator=g, dtype=torch.float64).to(self.dtype)
        return x, torch.randint(CLASSES, (n,), generator=g)


def draw(seed: int) -> Case:
    """The network of a seed, in training mode, with statistics that are not those of a new one."""
    rng = random.Random(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        case = Case(seed, (), nn.Identity())
        kind = rng.choice(["image", "image", "vector", "sequence"])
        layers = {"image": _image, "vector": _vector, "sequence": _sequence}[kind](rng, case)
        if rng.random() < 0.2:
            case.parts.append("in-place")
            layers.insert(0, Standardised())
        model: nn.Module = nn.Sequential(*layers)
        model = _wrapped(rng, model, case)
        if rng.random() < 0.2:
            case.dtype = torch.float32
        case.model = _converted(model, case)
        for module in case.model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
    return case


def _converted(model: nn.Module, case: Case) -> nn.Module:
    """In the dtype of the case."""
    if case.dtype == torch.float64:
        model.double()
    with torch.no_grad():  # weights that hooks have computed are computed anew
        model(case.inputs(3)[0])
    return model


def _left_out(case: Case, module: nn.Module) -> nn.Module:
    case.left_out |= {id(p) for p in module.parameters()}
    for p in module.parameters():
        with torch.no_grad():
            p.add_(0.2 * torch.randn_like(p))
    return module


def _activation(rng: random.Random) -> nn.Module:
    return rng.choice([
        nn.ReLU, lambda: nn.ReLU(inplace=True), nn.GELU, nn.Tanh, nn.SiLU, nn.ELU, lambda: Call(Swish.apply),
        nn.Softplus, nn.PReLU, lambda: Call(lambda x: x.clamp(min=0)), nn.Hardswish,
    ])()  # fmt: skip


def _linear(rng: random.Random, case: Case, inputs: int, outputs: int) -> nn.Module:
    kind = rng.choice([
        "plain", "plain", "no bias", "weight norm", "spectral norm", "old weight norm", "pruned", "table",
        "kept", "keyword", "checkpoint", "frozen", "hook", "parallel",
    ])  # fmt: skip
    case.parts.append(kind)
    layer = nn.Linear(inputs, outputs, bias=kind != "no bias")
    if kind == "weight norm":
        return parametrizations.weight_norm(layer)
    if kind == "spectral norm":
        return parametrizations.spectral_norm(layer)
    if kind == "old weight norm":
        return nn.utils.weight_norm(layer)
    if kind == "pruned":
        return prune.l1_unstructured(layer, "weight", 0.3)
    if kind == "frozen":
        layer.weight.requires_grad_(False)
        case.left_out.add(id(layer.weight))
    if kind == "hook":
        layer.register_forward_hook(lambda module, inputs, output: 1.5 * output)
    wrappers = {"kept": Keeping, "keyword": Keyword, "checkpoint": Checkpointed, "parallel": nn.DataParallel}
    if kind == "table":
        return ByTable(inputs, outputs)
    return wrappers[kind](layer) if kind in wrappers else layer


def _vector_block(rng: random.Random, case: Case, size: int) -> nn.Module:
    kind = rng.choice(["linear", "layer norm", "batch norm", "own norm", "tied", "twice", "residual"])
    case.parts.append(kind)
    if kind in ("layer norm", "batch norm"):
        layer = nn.LayerNorm if kind == "layer norm" else nn.BatchNorm1d
        return _left_out(case, layer(size))
    if kind == "own norm":
        norm = OwnNorm(size)
        case.left_out.add(id(norm.gain))
        return norm
    if kind == "residual":
        return Residual(nn.Sequential(_linear(rng, case, size, size), _activation(rng)))
    return {
        "linear": lambda: _linear(rng, case, size, size),
        "tied": lambda: Tied(size),
        "twice": lambda: Twice(nn.Linear(size, size)),
    }[kind]()


def _head(rng: random.Random, case: Case, inputs: int) -> list[nn.Module]:
    size = rng.choice([6, 8])
    layers = [_linear(rng, case, inputs, size), _activation(rng)]
    for _ in range(rng.randint(0, 2)):
        layers += [_vector_block(rng, case, size), rng.choice([nn.Identity, nn.Dropout, nn.Tanh])()]
    return [*layers, nn.Linear(size, CLASSES)]


def _vector(rng: random.Random, case: Case) -> list[nn.Module]:
    case.shape = (12,)
    return _head(rng, case, 12)


def _sequence(rng: random.Random, case: Case) -> list[nn.Module]:
    case.shape = (5, 8)
    kind = rng.choice(["attention", "lstm", "gru", "convolution"])
    case.parts.append(kind)
    if kind == "attention":
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, dropout=0.1)
        for norm in (layer.norm1, layer.norm2):
            _left_out(case, norm)
        return [layer, Call(lambda x: x.mean(1)), *_head(rng, case, 8)]
    if kind == "convolution":
        return [
            nn.Conv1d(5, 6, 3),
            _activation(rng),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            *_head(rng, case, 6),
        ]
    return [Recurrent(nn.LSTM if kind == "lstm" else nn.GRU, 8, 6), *_head(rng, case, 6)]


def _image(rng: random.Random, case: Case) -> list[nn.Module]:
    channels = rng.choice([1, 3])
    case.shape, size, layers = (channels, 8, 8), 8, []
    for _ in range(rng.randint(1, 3)):
        outputs = rng.choice([4, 6])
        kernel, groups = rng.choice([1, 3]), 2 if channels % 2 == 0 and rng.random() < 0.3 else 1
        stride = 2 if size == 8 and rng.random() < 0.4 else 1
        padding_mode = rng.choice(["zeros", "zeros", "reflect", "circular"])
        padding = kernel // 2
        layers.append(
            nn.Conv2d(channels, outputs, kernel, stride, padding, groups=groups, padding_mode=padding_mode,
                      bias=rng.random() < 0.5)
        )  # fmt: skip
        size, channels = (size + 2 * padding - kernel) // stride + 1, outputs
        norm = rng.choice(["batch norm", "group norm", "instance norm", "none", "batch norm"])
        case.parts.append(f"convolution, {norm}")
        if norm != "none":
            layers.append(_left_out(case, {
                "batch norm": nn.BatchNorm2d, "group norm": lambda c: nn.GroupNorm(2, c),
                "instance norm": lambda c: nn.InstanceNorm2d(c, affine=True),
            }[norm](channels)))  # fmt: skip
        layers.append(_activation(rng))
        extra = rng.choice(["none", "pool", "unpool", "residual", "dropout", "upsample"])
        case.parts.append(extra)
        if extra == "pool" and size >= 4:
            layers.append(rng.choice([nn.MaxPool2d, nn.AvgPool2d])(2))
            size //= 2
        elif extra == "unpool" and size % 2 == 0:
            layers.append(Unpooled())
        elif extra == "residual":
            layers.append(Residual(nn.Conv2d(channels, channels, 3, padding=1)))
        elif extra == "dropout":
            layers.append(nn.Dropout2d(0.3))
        elif extra == "upsample" and size <= 4:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear"))
            size *= 2
    if rng.random() < 0.5:
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        features = channels
    else:
        flat = rng.choice([nn.Flatten, lambda: Call(lambda x: x.reshape(len(x), -1))])
        layers += [flat()]
        features = channels * size * size
    return [*layers, *_head(rng, case, features)]


def _wrapped(rng: random.Random, model: nn.Module, case: Case) -> nn.Module:
    kind = rng.choice(["none", "none", "parallel", "hook", "nested", "kept", "keyword free"])
    case.parts.append(f"wrapped: {kind}")
    if kind == "parallel":
        return nn.DataParallel(model)
    if kind == "hook":
        model.register_forward_hook(lambda module, inputs, output: 2 * output)
        return model
    if kind == "nested":
        return nn.Sequential(nn.Sequential(model))
    return Keeping(model) if kind == "kept" else model
