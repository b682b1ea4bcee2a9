"""Networks drawn at random: layers, wrappers, dtypes and odd forwards, as people combine them."""

import random
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

CLASSES = 4


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


class Checkpointed(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return checkpoint(self.layer, x, use_reentrant=False)


@dataclass
class Case:
    """A network, and what is known from how it was made: weights of normalisation and frozen ones."""

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


def _left_out(case: Case, module: nn.Module) -> nn.Module:
    case.left_out |= {id(p) for p in module.parameters()}
    for p in module.parameters():
        with torch.no_grad():
            p.add_(0.2 * torch.randn_like(p))
    return module


def _activation(rng: random.Random) -> nn.Module:
    return rng.choice([
        nn.ReLU, lambda: nn.ReLU(inplace=True), nn.GELU, nn.Tanh, nn.SiLU,
        nn.PReLU, lambda: Call(lambda x: x.clamp(min=0)),
    ])()  # fmt: skip


def draw(seed: int) -> Case:
    """The network of a seed, in training mode, with statistics that are not those of a new one."""
    rng = random.Random(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        case = Case(seed, (), nn.Identity())
        layers = rng.choice([_image, _image, _vector, _sequence])(rng, case)
        if rng.random() < 0.2:
            case.parts.append("in-place")
            layers.insert(0, Call(lambda x: x.sub_(0.4).div_(0.3)))
        model = nn.Sequential(*layers)
        wrapper = rng.choice(["none", "parallel", "hook"])
        case.parts.append(f"wrapped: {wrapper}")
        if wrapper == "hook":
            model.register_forward_hook(lambda module, inputs, output: 2 * output)
        case.model = nn.DataParallel(model) if wrapper == "parallel" else model
        if rng.random() < 0.2:
            case.dtype = torch.float32
        case.model.to(case.dtype)
        with torch.no_grad():  # weights that hooks have computed are computed anew
            case.model(case.inputs(3)[0])
        for module in case.model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
    return case


def _linear(rng: random.Random, case: Case, inputs: int, outputs: int) -> nn.Module:
    kinds = {
        "plain": lambda layer: layer,
        "no bias": lambda layer: nn.Linear(inputs, outputs, bias=False),
        "weight norm": parametrizations.weight_norm,
        "spectral norm": parametrizations.spectral_norm,
        "old weight norm": nn.utils.weight_norm,
        "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.3),
        "table": lambda layer: ByTable(inputs, outputs),
        "checkpoint": Checkpointed,
        "parallel": nn.DataParallel,
        "frozen": lambda layer: layer,
        "hook": lambda layer: layer,
    }
    kind = rng.choice([*kinds])
    case.parts.append(kind)
    layer = nn.Linear(inputs, outputs)
    if kind == "frozen":
        layer.weight.requires_grad_(False)
        case.left_out.add(id(layer.weight))
    if kind == "hook":
        layer.register_forward_hook(lambda module, inputs, output: 1.5 * output)
    return kinds[kind](layer)


def _vector_block(rng: random.Random, case: Case, size: int) -> nn.Module:
    kinds = {
        "linear": lambda: _linear(rng, case, size, size),
        "layer norm": lambda: _left_out(case, nn.LayerNorm(size)),
        "batch norm": lambda: _left_out(case, nn.BatchNorm1d(size)),
        "tied": lambda: Tied(size),
        "residual": lambda: Residual(nn.Sequential(_linear(rng, case, size, size), _activation(rng))),
    }
    kind = rng.choice([*kinds])
    case.parts.append(kind)
    return kinds[kind]()


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
        pooled = [nn.AdaptiveAvgPool1d(1), nn.Flatten()]
        return [nn.Conv1d(5, 6, 3), _activation(rng), *pooled, *_head(rng, case, 6)]
    recurrent = (nn.LSTM if kind == "lstm" else nn.GRU)(8, 6, batch_first=True)
    return [recurrent, Call(lambda outputs: outputs[0][:, -1]), *_head(rng, case, 6)]


def _image(rng: random.Random, case: Case) -> list[nn.Module]:
    channels = rng.choice([1, 3])
    case.shape, layers = (channels, 12, 12), []  # 2x2 at least where instance norm stands
    for _ in range(rng.randint(1, 2)):
        inputs, channels = channels, rng.choice([4, 6])
        kernel, groups = rng.choice([1, 3]), 2 if inputs % 2 == 0 and rng.random() < 0.3 else 1
        mode = rng.choice(["zeros", "reflect", "circular"])
        conv = nn.Conv2d(inputs, channels, kernel, rng.choice([1, 2]), kernel // 2, groups=groups,
                         padding_mode=mode, bias=rng.random() < 0.5)  # fmt: skip
        norms = {
            "batch norm": nn.BatchNorm2d(channels),
            "group norm": nn.GroupNorm(2, channels),
            "instance norm": nn.InstanceNorm2d(channels, affine=True),
            "none": nn.Identity(),
        }
        extras = {
            "none": nn.Identity(),
            "pool": rng.choice([nn.MaxPool2d, nn.AvgPool2d])(2),
            "residual": Residual(nn.Conv2d(channels, channels, 3, padding=1)),
            "dropout": nn.Dropout2d(0.3),
            "upsample": nn.Upsample(scale_factor=2, mode="bilinear"),
        }
        norm, extra = rng.choice([*norms]), rng.choice([*extras])
        case.parts += [f"convolution, {norm}", extra]
        layers += [conv, _left_out(case, norms[norm]), _activation(rng), extras[extra]]
    flat = rng.choice([nn.Flatten(), Call(lambda x: x.reshape(len(x), -1))])
    layers += [nn.AdaptiveAvgPool2d(rng.choice([1, 2])), flat]
    features = nn.Sequential(*layers).eval()(torch.zeros(1, *case.shape)).shape[1]
    return [*layers, *_head(rng, case, features)]
