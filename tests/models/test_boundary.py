"""Anyone's model: measured right, or refused in one error; never silently wrong."""

import random
import sys
import threading
from collections import OrderedDict, deque
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

from robust_flatness.attacks import PGD
from robust_flatness.boundary import Outcome
from robust_flatness.errors import ConfigError, MeasurementWarning, NonFiniteError
from robust_flatness.evaluation import evaluate_robustness
from robust_flatness.flatness import average_flatness, hessian_eigenvalues, worst_flatness

ATTACK = PGD(epsilon=0.1, step_size=0.05, steps=2)


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 4))


class Through(nn.Module):
    """A linear network after a function of the input and before one of the logits."""

    def __init__(self, before=lambda x: x, after=lambda z: z):
        super().__init__()
        self.net, self.before, self.after = linear(), before, after

    def forward(self, x):
        return self.after(self.net(self.before(x)))


@pytest.fixture
def data():
    g = torch.Generator().manual_seed(0)
    return torch.rand(9, 1, 4, 4, generator=g), torch.randint(4, (9,), generator=g)


MEASURES = {
    "robustness": lambda m, x, y: evaluate_robustness(m, x, y, attack=ATTACK, autoattack=False).rloss_pgd,
    "average": lambda m, x, y: average_flatness(m, x, y, attack=ATTACK, samples=2).value,
    "worst": lambda m, x, y: worst_flatness(m, x, y, attack=ATTACK, steps=2, restarts=1).value,
    "hessian": lambda m, x, y: hessian_eigenvalues(m, x, y, k=2).largest,
}


@pytest.fixture(params=MEASURES)
def measure(request):
    return MEASURES[request.param]


def test_labels_of_any_integer_type_are_taken(data):
    x, y = data
    for kind in (torch.int32, torch.uint8):
        assert MEASURES["average"](linear(), x, y.to(kind)) == MEASURES["average"](linear(), x, y)


BAD_INPUTS = {
    "label below 0": lambda x, y: (x, y.clone().index_fill_(0, torch.tensor([3]), -100)),
    "label of no class": lambda x, y: (x, y.clone().index_fill_(0, torch.tensor([5]), 4)),
    "floating-point labels": lambda x, y: (x, y.float()),
    "one-hot labels": lambda x, y: (x, F.one_hot(y, 4)),
    "too few targets": lambda x, y: (x, y[:-1]),
    "a list": lambda x, y: (x, y.tolist()),
    "sparse images": lambda x, y: (x.to_sparse(), y),
    "NaN in an image": lambda x, y: (x.index_fill(0, torch.tensor([4]), torch.nan), y),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_other_inputs_and_targets_are_refused(measure, data, case):
    with pytest.raises(ConfigError):
        measure(linear(), *BAD_INPUTS[case](*data))


def test_logits_that_are_no_numbers_are_refused(measure, data):
    x, y = data
    x[6] = 0
    model = Through()
    shift = (model.net[1].bias - model.net[1].bias[0]).detach()  # the logits of black images
    model.after = lambda z: torch.where((z - z[:, :1] - shift).abs().amax(1, True) < 1e-6, torch.nan, z)
    with pytest.raises(NonFiniteError):
        measure(model, x, y)


WARNED = {
    "probabilities": (Through(after=lambda z: z.softmax(1)), "are probabilities"),
    "sigmoid": (Through(after=torch.sigmoid), "those of a sigmoid"),
    "rounded input": (Through(lambda x: (x * 8).round() / 8), "gradient by the inputs is zero at 9 of 9"),
    "saturation": (Through(after=lambda z: (1e6 * z).clamp(-1, 1)), "gradient by the inputs is zero"),
    "noise": (Through(lambda x: x + 0.1 * torch.randn_like(x)), "random"),
    "python's randomness": (Through(lambda x: x * random.random()), "random"),
    "batch": (Through(lambda x: x - x.mean(0)), "depend on the others of its batch"),
    "large batch": (Through(lambda x: x - x.mean(0) * (len(x) > 4)), "depend on the others of its batch"),
}


@pytest.mark.parametrize("name", WARNED)
def test_properties_that_mislead_attacks_are_warned_of(data, name):
    model, words = WARNED[name]
    with pytest.warns(MeasurementWarning, match=words):
        MEASURES["robustness"](model, *data)


def test_weights_that_do_not_influence_the_logits_are_named(data):
    model = Through()
    model.left = nn.Linear(2, 2)
    with pytest.warns(MeasurementWarning, match="no gradient reaches left.weight, left.bias"):
        MEASURES["average"](model, *data)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, parametrize.cached])
def test_the_callers_modes_make_no_difference(measure, data, mode):
    x, y = data
    model = nn.Sequential(linear(), parametrizations.weight_norm(nn.Linear(4, 4)))
    expected = measure(model, x, y)
    if measure is MEASURES["hessian"]:  # ARPACK's result depends on rounding in the BLAS
        expected = pytest.approx(expected, rel=1e-6)
    with mode():
        assert measure(model, x + 0, y + 0) == expected
    with torch.autocast("cpu", torch.bfloat16):
        assert measure(model, x, y) == expected


class Recurrent(nn.Module):
    """Keeps a state of the size of the batch."""

    def __init__(self):
        super().__init__()
        self.net, self.state = linear(), None

    def forward(self, x):
        self.state = x.detach() if self.state is None else self.state + x.detach()
        return self.net(x + self.state)


class Holder(nn.Module):
    """Changes what it holds, in objects and containers, and freezes layers in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.net, self.kept = linear(), SimpleNamespace(calls=0, sizes=deque(), by={"n": [np.zeros(1)]})
        self.register_buffer("mean", torch.zeros(1).expand(4))
        self.generator, self.config = torch.Generator(), Frozen(a=1)
        self.seen, self.graph = OrderedDict(), torch.eye(2).to_sparse()
        self.fixed = np.broadcast_to(np.zeros(1), 3)

    def train(self, mode=True):
        self.net.requires_grad_(mode)
        return super().train(mode)

    def forward(self, x):
        self.kept.calls += 1
        self.kept.sizes.append(len(x))
        self.seen[len(self.seen)] = x
        self.kept.by["n"][0] += torch.rand((), generator=self.generator).item()
        return self.net(x) - self.mean


class Frozen(dict):
    def update(self, *values):
        raise TypeError("frozen")


@pytest.mark.filterwarnings("ignore")
def test_all_that_a_module_holds_is_as_it_was(measure, data):
    model = Holder()
    state, pointers = model.generator.get_state(), [p.data_ptr() for p in model.parameters()]
    model.net[1].bias.grad, random_state = torch.ones(4), torch.get_rng_state()
    measure(model, *data)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [p.data_ptr() for p in model.parameters()] == pointers
    assert model.net[1].weight.grad is None
    assert torch.equal(model.net[1].bias.grad, torch.ones(4))
    assert (model.kept.calls, model.kept.sizes, model.kept.by["n"]) == (0, deque(), [0.0])
    assert torch.equal(model.generator.get_state(), state)
    assert (model.config, [*model.seen]) == ({"a": 1}, [])
    assert all(p.requires_grad for p in model.parameters())


def _patched():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 4))
    plain = model.forward
    model.forward = lambda x: plain(x)
    return model


def _with(**attributes):
    model = linear()
    for name, value in attributes.items():
        setattr(model, name, value)
    return model


class KeptByCopies(nn.Linear):
    def __deepcopy__(self, memo):
        return self


def _hooked():
    """A dropout that asks the mode of the network, from which the hook comes, not that of the layer."""
    model = linear()
    model[1].register_forward_hook(lambda _, inputs, output: F.dropout(output, 0.9, model.training))
    return model


def _noisy():
    """The forward of the original on noise from a generator of its own: no call gives the same logits."""
    model, g = linear(), torch.Generator().manual_seed(0)
    plain = model.forward
    model.forward = lambda x: plain(x + 0.1 * torch.randn(x.shape, generator=g))
    return model


class Fused(nn.Sequential):
    def eval(self):
        self[1] = nn.Sequential(self[1])
        return super().eval()


REFUSED = {
    "a lock": lambda: _with(lock=threading.Lock()),
    "a copy that shares layers": lambda: nn.Sequential(nn.Flatten(), KeptByCopies(16, 4)),
    "forward that exits": lambda: Through(sys.exit),
    "reentrant checkpoint": lambda: Through(partial(checkpoint, torch.tanh, use_reentrant=True)),
    "no statistics": lambda: nn.Sequential(linear(), nn.BatchNorm1d(4, track_running_stats=False)),
    "state of a batch": Recurrent,
    "forward of another module": _patched,
    "mode of the original": _hooked,
    "random forward of the original": _noisy,
    "other parameters in evaluation mode": lambda: Fused(*linear()),
    "expanded parameter": lambda: _with(scale=nn.Parameter(torch.ones(1).expand(4))),
    "scripted": lambda: torch.jit.script(linear()),
    "lazy": lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(4)),
    "complex": lambda: _with(w=nn.Parameter(torch.ones(3, dtype=torch.cfloat))),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_models_that_cannot_be_measured_are_refused_unchanged(measure, data, name):
    model = REFUSED[name]()
    state = {} if name == "lazy" else {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ConfigError):
        measure(model, *data)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    assert model.training


def test_integer_parameters_are_neither_perturbed_nor_changed(measure, data):
    model = _with(steps=nn.Parameter(torch.arange(3), requires_grad=False))
    assert measure(model, *data) == pytest.approx(measure(linear(), *data), rel=1e-6)
    assert model.steps.tolist() == [0, 1, 2]


class Tied(nn.Module):
    """Two layers with one weight, or the second with the first one's transposed."""

    def __init__(self, how):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.out = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.transposed = how == "written out"
        if how == "one parameter":
            self.two.weight = self.one.weight
        elif how == "one memory":
            self.two.weight.data = self.one.weight.data
        elif how == "transposed":
            self.two.weight = nn.Parameter(self.one.weight.data.T)
        else:
            del self.two.weight

    def forward(self, x):
        h = torch.tanh(self.one(x.flatten(1)))
        h = F.linear(h, self.one.weight.T, self.two.bias) if self.transposed else self.two(h)
        return self.out(torch.tanh(h))


class TiedConvolutions(nn.Module):
    """A convolution that is used twice; its layout in memory is changed for speed."""

    def __init__(self, how):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.out = nn.Conv2d(1, 3, 3, padding=1), nn.Linear(3, 4)
        self.one, self.two = (nn.Conv2d(3, 3, 3, padding=1, bias=False) for _ in range(2))
        if how == "one parameter":
            self.two.weight = self.one.weight
        elif how == "one memory":
            self.two.weight.data = self.one.weight.data
        else:
            self.two = self.one

    def forward(self, x):
        h = torch.tanh(self.two(torch.tanh(self.one(self.stem(x)))))
        return self.out(h.mean((2, 3)))


@pytest.mark.parametrize(("kind", "how", "plain"), [
    (Tied, "one memory", "one parameter"), (Tied, "transposed", "written out"),
    (TiedConvolutions, "one memory", "one module"), (TiedConvolutions, "one parameter", "one module"),
])  # fmt: skip
def test_shared_weights_have_one_value_and_the_gradient_of_all_uses(measure, data, kind, how, plain):
    found, expected = (measure(kind(sharing), *data) for sharing in (how, plain))
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_gradient_that_is_nan_agrees_with_none_that_is_not():
    logits, ones, nan = torch.zeros(2, 3), torch.ones(2, 4), torch.full((2, 4), torch.nan)
    assert Outcome(logits, nan).agrees(Outcome(logits, nan))
    assert not Outcome(logits, nan).agrees(Outcome(logits, ones))
    assert not Outcome(logits, ones).agrees(Outcome(logits, nan))
    assert not Outcome(logits, 1.1 * ones).agrees(Outcome(logits, ones))
