"""Anyone's model: right or refused, never silently wrong. One test a kind of fault."""

import copy
import functools
import random
import threading
import types
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

from robust_flatness.attacks import PGD
from robust_flatness.config import AutoAttackSpec, ModelSpec
from robust_flatness.errors import ConfigError, MeasurementWarning, NonFiniteError
from robust_flatness.evaluation import evaluate_robustness
from robust_flatness.flatness import (
    average_flatness,
    hessian_eigenvalues,
    perturbed_parameters,
    spectrum,
    worst_flatness,
)
from robust_flatness.models import build_model
from robust_flatness.models.copying import reachable
from robust_flatness.models.inference import InferenceModel

ATTACK = PGD(epsilon=0.1, step_size=0.05, steps=2)


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 4))


class Through(nn.Module):
    """A linear network behind a function of the input, before one of the logits."""

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
    "pgd": lambda m, x, y: ATTACK(m, x, y).loss.mean().item(),
    "average": lambda m, x, y: average_flatness(m, x, y, attack=ATTACK, samples=2).value,
    "worst": lambda m, x, y: worst_flatness(m, x, y, attack=ATTACK, steps=2, restarts=1).value,
    "clean": lambda m, x, y: average_flatness(m, x, y, attack=None, samples=2).value,
    "hessian": lambda m, x, y: hessian_eigenvalues(m, x, y, k=2).largest,
}


@pytest.fixture(params=MEASURES)
def measure(request):
    return MEASURES[request.param]


TARGETS = {
    "int32": lambda y: y.int(),
    "uint8": lambda y: y.byte(),
    "whole floats": lambda y: y.float(),
    "column": lambda y: y[:, None],
    "one-hot": lambda y: F.one_hot(y, 4),
    "one-hot floats": lambda y: F.one_hot(y, 4).half(),
}


@pytest.mark.parametrize("form", TARGETS)
def test_targets_whose_meaning_is_sure_are_converted(measure, data, form):
    x, y = data
    assert measure(linear(), x, TARGETS[form](y)) == measure(linear(), x, y)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda y: y.clone().index_fill_(0, torch.tensor([3]), -100), "label -100 of example 3"),
        (lambda y: y.clone().index_fill_(0, torch.tensor([5]), 4), "label 4 of example 5, but .* 4 classes"),
        (lambda y: y + 0.5, "not whole"),
        (lambda y: y.float() * torch.nan, "not whole"),
        (lambda y: F.one_hot(y, 4) * 2, "not one-hot"),
        (lambda y: y[:-1], "9 inputs and 8 targets"),
        (lambda y: F.one_hot(y, 6) * 1.0, None),
    ],
)
def test_other_targets_are_refused(measure, data, change, words):
    x, y = data
    y = y.clone()
    y[0] = 3
    target = change(y)
    if words is None:  # one-hot for more classes than there are: right as long as none of them is used
        assert measure(linear(), x, target) == measure(linear(), x, y)
        return
    with pytest.raises(ConfigError, match=words):
        measure(linear(), x, target)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_no_numbers_are_named(measure, data, bad):
    x, y = data
    x[6] = 0

    model = Through()
    shift = (model.net[1].bias - model.net[1].bias[0]).detach()  # what black images give
    model.after = lambda z: torch.where((z - z[:, :1] - shift).abs().amax(1, keepdim=True) < 1e-6, bad, z)
    if measure is MEASURES["pgd"] and bad == -torch.inf:
        pytest.skip("its loss is infinite")
    with pytest.raises(NonFiniteError):
        measure(model, x, y)


def test_images_that_are_no_numbers_are_named(measure, data):
    x, y = data
    x[4, 0, 0, 0] = torch.nan
    with pytest.raises(ConfigError, match="NaN in input 4"):
        measure(linear(), x, y)


WARNED = {
    "probabilities": (Through(after=lambda z: z.softmax(1)), "are probabilities"),
    "log-probabilities": (Through(after=lambda z: z.log_softmax(1)), "log-probabilities"),
    "sigmoid": (Through(after=torch.sigmoid), r"all outputs lie in \[0, 1\]"),
    "rounded input": (Through(lambda x: (x * 8).round() / 8), "gradient by the inputs is zero at 9 of 9"),
    "saturation": (Through(after=lambda z: (1e6 * z).clamp(-1, 1)), "gradient by the inputs is zero"),
    "noise": (Through(lambda x: x + 0.1 * torch.randn_like(x)), "random"),
    "python's randomness": (Through(lambda x: x * random.random()), "random"),
    "batch": (Through(lambda x: x - x.mean(0)), "depend on the others of its batch"),
}


@pytest.mark.parametrize("name", WARNED)
def test_what_misleads_attacks_is_said(data, name):
    model, words = WARNED[name]
    with pytest.warns(MeasurementWarning, match=words):
        evaluate_robustness(model, *data, attack=ATTACK, autoattack=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", MeasurementWarning)
        evaluate_robustness(linear(), *data, attack=ATTACK, autoattack=False)


@pytest.mark.parametrize(
    "after", [lambda z: z.sigmoid() / 2.5, lambda z: z.sigmoid() * 1.5, torch.tanh, "few"]
)
def test_outputs_near_those_of_a_sigmoid_are_not_taken_for_one(data, after):
    x, y = data if after != "few" else (part[:4] for part in data)
    model = Through(after=torch.sigmoid if after == "few" else after)
    with warnings.catch_warnings():
        warnings.simplefilter("error", MeasurementWarning)
        evaluate_robustness(model, x, y, attack=ATTACK, autoattack=False)


def test_the_checks_of_autoattack_are_made(data):
    x, _ = data

    def optimised(x):
        with torch.enable_grad():
            delta = torch.zeros_like(x, requires_grad=True)
            (step,) = torch.autograd.grad((x + delta).square().sum(), delta)
        return x - 0.01 * step

    y = linear()(x).argmax(1)
    spec = AutoAttackSpec(version="reduced", attacks=("apgd-ce", "fab-t", "square"), iterations=2, queries=60)
    with pytest.warns(MeasurementWarning, match="dynamic defence"):
        evaluate_robustness(Through(optimised), x, y, attack=ATTACK, autoattack=spec)
    masked = Through(lambda x: (x * 255).round() / 255)
    with pytest.warns(MeasurementWarning, match="Square"):
        evaluate_robustness(masked, x, y, attack=ATTACK, autoattack=spec)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_callers_contexts_make_no_difference(measure, data, mode):
    x, y = data
    expected = measure(linear(), x, y)
    with mode():
        assert measure(linear(), x + 0, y + 0) == expected
        model = linear()
    assert measure(model.train(), x, y) == expected
    with torch.autocast("cpu", torch.bfloat16):
        assert measure(linear(), x, y) == expected
    torch.set_default_dtype(torch.float64)
    try:
        assert measure(linear().float(), x, y) == pytest.approx(measure(linear().float(), x, y))
    finally:
        torch.set_default_dtype(torch.float32)


def test_random_states_stay(measure, data):
    model = Through(lambda x: x + 0.01 * torch.rand_like(x) * random.random())
    random.seed(0)
    states = torch.get_rng_state(), random.getstate()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        measure(model, *data)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


@pytest.mark.parametrize("squeezed", [True, False])
def test_batches_of_one(data, squeezed):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.out = nn.Conv2d(1, 3, 4), nn.Linear(3, 4)

        def forward(self, x):
            return self.out(self.conv(x).squeeze() if squeezed else self.conv(x).flatten(1))

    x, y = data
    values = [
        evaluate_robustness(Net(), x, y, attack=ATTACK, autoattack=False, batch_size=size).rloss_pgd
        for size in (1, 4, 9)
    ]
    assert values == pytest.approx([values[0]] * 3)


def test_a_network_that_needs_companions_is_refused(data):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.BatchNorm1d(4, track_running_stats=False))
    with pytest.raises(ConfigError, match="single input"):
        evaluate_robustness(model, *data, attack=ATTACK, autoattack=False)


class Parts(nn.Module):
    """Of each kind of parameter one."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4)
        self.layer_norm2d = type("LayerNorm2d", (nn.Module,), {})()
        self.layer_norm2d.gain = nn.Parameter(torch.ones(4, 1, 1))
        self.count = nn.Parameter(torch.zeros(3, dtype=torch.int64), requires_grad=False)
        self.frozen = nn.Parameter(torch.ones(()), requires_grad=False)
        self.one = nn.Linear(4, 4)
        self.same = nn.Linear(4, 4)
        self.same.weight = self.one.weight
        self.view = nn.Parameter(torch.empty(4))
        self.view.data = self.one.bias.data.view(4)
        self.spectrum = nn.Parameter(torch.ones(3, dtype=torch.cfloat))

    def forward(self, x):
        h = self.norm(self.conv(x)).mean((2, 3)) * self.layer_norm2d.gain.flatten()
        h = self.same(self.one(h)) + self.view * self.frozen
        return torch.fft.irfft(torch.fft.rfft(h) * self.spectrum, n=4)


def test_what_is_perturbed():
    names = ["spectrum", "conv.weight", "conv.bias", "one.weight", "one.bias", "same.bias"]
    model = Parts()
    expected = [n for n, _ in model.named_parameters() if n in names or n == "view"]
    expected.remove("one.bias" if expected.index("view") < expected.index("one.bias") else "view")
    assert perturbed_parameters(model) == expected
    assert perturbed_parameters(linear().requires_grad_(False)) == ["1.weight", "1.bias"]


class Held(nn.Module):
    """A hidden layer whose weight is held in some way that is not a parameter's."""

    def __init__(self, hold):
        super().__init__()
        self.net, self.layer = linear(), nn.Module()
        hold(self.layer, torch.randn(16, 16, generator=torch.Generator().manual_seed(1)) / 4)

    def forward(self, x):
        w = next(held for _, held in reachable(self.layer) if isinstance(held, torch.Tensor))
        return self.net(F.linear(x.flatten(1), w))


WAYS = {
    "attribute": lambda layer, w: setattr(layer, "kernel", w),
    "list of parameters": lambda layer, w: setattr(layer, "kernels", [nn.Parameter(w)]),
    "object": lambda layer, w: setattr(layer, "kernels", types.SimpleNamespace(inner={"w": w})),
    "buffer": lambda layer, w: layer.register_buffer("weight", w),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["average", "worst", "hessian"])
def test_weights_that_are_no_parameters_are_told(data, name, way):
    with pytest.warns(MeasurementWarning, match=r"1 tensor .* is no parameter and not perturbed: layer\."):
        MEASURES[name](Held(WAYS[way]), *data)


@pytest.mark.parametrize("read", [torch.from_numpy, torch.tensor, torch.as_tensor])
def test_weights_in_arrays_are_told(data, read):
    class Arrays(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.unused = linear(), np.ones((16, 16))
            self.kernel = np.random.default_rng(1).standard_normal((16, 16)) / 4

        def forward(self, x):
            return self.net(F.linear(x.flatten(1), read(self.kernel).to(x)))

    model = Arrays()
    before = model.kernel.copy()
    with pytest.warns(MeasurementWarning, match=r"1 tensor .* is no parameter and not perturbed: kernel;"):
        average_flatness(model, *data, attack=None, samples=2)
    assert (model.kernel == before).all()


def a_closure(w):
    return lambda x: F.linear(x, w)


def a_partial_function(w):
    return functools.partial(F.linear, weight=w)


def a_class_attribute(w):
    return type("Kernel", (), {"w": w, "__call__": lambda self, x: F.linear(x, self.w)})()


def slots(w):
    class Kernel:
        __slots__ = ("w",)

        def __call__(self, x):
            return F.linear(x, self.w)

    kernel = Kernel()
    kernel.w = w
    return kernel


def a_layer_in_a_closure(w):
    layer = nn.Linear(16, 16)
    layer.weight.data.copy_(w)
    return lambda x: layer(x)


@pytest.mark.parametrize(
    "hide", [a_closure, a_partial_function, a_class_attribute, slots, a_layer_in_a_closure]
)
def test_weights_that_no_attribute_holds_are_told(data, hide):
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = linear()
            self.function = hide(torch.randn(16, 16, generator=torch.Generator().manual_seed(1)) / 4)

        def forward(self, x):
            return self.net(self.function(x.flatten(1)) + torch.tensor([0.5] * 16))

    words = r"depend on .* no parameters? and not perturbed: .*of shape \[16, 16\] held by no layer"
    with pytest.warns(MeasurementWarning, match=words):
        average_flatness(Hidden(), *data, attack=None, samples=2)


class Amplified(nn.Module):
    """Convolutions, and a gradient that differs where images lie channels-last, a little or a lot."""

    def __init__(self, error):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4))
        self.error = error

    def forward(self, x):
        last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        if x.requires_grad and last:
            x = x + self.error * (x - x.detach())
        return self.net(x)


@pytest.mark.parametrize(("error", "kept"), [(0.0, True), (0.01, True), (0.5, False)])
def test_a_layout_is_kept_where_it_changes_gradients_by_rounding_alone(error, kept):
    x = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    net = InferenceModel.of(Amplified(error), x)
    net.require_exact()
    assert net.network is not None  # a copy, not the module itself
    assert net._channels_last is kept


def test_literals_and_constants_of_the_forward_pass_are_no_weights(data):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = linear()

        def forward(self, x):
            grid = torch.linspace(-1, 1, 16) + torch.tensor([0.5] * 16) + torch.ones(16)
            return self.net(x.flatten(1) * grid)

    with warnings.catch_warnings():
        warnings.simplefilter("error", MeasurementWarning)
        average_flatness(Plain(), *data, attack=None, samples=2)


def test_a_network_that_refuses_other_constants_is_measured_all_the_same(data):
    class Strict(Held):
        def forward(self, x):
            if abs(self.layer.kernel.sum() - self.total) > 1e-6:
                raise ValueError("another kernel")
            return super().forward(x)

    model = Strict(WAYS["attribute"])
    model.total, kernel = model.layer.kernel.sum().item(), model.layer.kernel.clone()
    with pytest.warns(MeasurementWarning, match="1 tensor "):
        average_flatness(model, *data, attack=None, samples=2)
    assert torch.equal(model.layer.kernel, kernel)


def test_frozen_weights_are_told_unless_all_are(data):
    class Tuned(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8)).requires_grad_(False)
            self.head = nn.Linear(8, 4)

        def forward(self, x):
            return self.head(self.body(x))

    words = r"2 parameters are frozen .* beside 2 that are: body\.1\.weight, body\.1\.bias;"
    with pytest.warns(MeasurementWarning, match=words):
        average_flatness(Tuned(), *data, attack=None, samples=2)
    tuned = Tuned()
    tuned.head.requires_grad_(False)
    tuned.body[2].requires_grad_(True)  # as where batch norms alone are adapted
    with pytest.raises(ConfigError, match=r"nothing can be perturbed; 4 parameters are frozen"):
        average_flatness(tuned, *data, attack=None, samples=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", MeasurementWarning)
        average_flatness(Tuned().requires_grad_(False), *data, attack=None, samples=2)


def test_frozen_weights_that_the_logits_do_not_depend_on_are_not_told(data):
    model = linear()
    model.teacher = nn.Linear(16, 16).requires_grad_(False)
    model.forward = types.MethodType(lambda self, x: self[1](self[0](x)), model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", MeasurementWarning)
        average_flatness(model, *data, attack=None, samples=2)


def test_frozen_weights_of_the_kits_networks_are_told(data):
    spec = ModelSpec(name="small-resnet", width=4)
    model = build_model(spec, 4, (0.5,), (0.3,), torch.Generator().manual_seed(0))
    model.stem.requires_grad_(False)
    with pytest.warns(MeasurementWarning, match="2 parameters are frozen"):
        average_flatness(model, *data, attack=None, samples=2)


def test_what_is_no_weight_of_a_network_that_no_copy_equals_is_not_told(data):
    class Closed(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layer = layer = nn.Linear(16, 4)
            self.gain = nn.Parameter(torch.ones(16), requires_grad=False)
            self.shift = torch.ones(16)
            self.run = lambda x: layer(x)

        def forward(self, x):
            return self.run(F.layer_norm(x.flatten(1), (16,), self.gain, self.shift))

    with warnings.catch_warnings():
        warnings.simplefilter("error", MeasurementWarning)
        average_flatness(Closed(), *data, attack=None, samples=2)


class Harmless(nn.Module):
    """Of what is no parameter, and no weight either, one of each kind."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.mean, self.scale = torch.rand(1, 1, 1, 1), nn.Parameter(torch.ones(()), requires_grad=False)
        self.order, self.unused = torch.arange(16), torch.rand(16)
        self.net = nn.utils.weight_norm(nn.Linear(16, 16))
        self.pruned = prune.l1_unstructured(nn.Linear(16, 16), "weight", 0.3)
        self.parametrised = parametrizations.spectral_norm(nn.Linear(16, 16))
        self.norm, self.recurrent = nn.BatchNorm1d(16), nn.LSTM(16, 4, batch_first=True)
        self.norms = [nn.BatchNorm1d(16).eval().requires_grad_(False)]
        self.gain, self.shift = (nn.Parameter(torch.ones(16), requires_grad=False) for _ in range(2))
        self.tables, self.features = {"net": self.net.weight_v}, None
        self.nested = torch.nested.nested_tensor([torch.rand(2, 3), torch.rand(4, 3)])

    def forward(self, x):
        x = (x - self.mean).flatten(1)[:, self.order] * self.scale
        self.features = self.pruned(self.net(x).relu())
        x = F.layer_norm(self.parametrised(self.features), (16,), self.gain, self.shift)
        return self.recurrent(self.norms[0](self.norm(x))[:, None])[0][:, 0]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("used", [False, True])
def test_what_is_no_weight_is_not_told(data, used):
    model = Harmless().eval()
    if used:
        model(data[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error", MeasurementWarning)
        average_flatness(model, *data, attack=None, samples=2)
        hessian_eigenvalues(model, *data, k=2)


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


@pytest.mark.parametrize(("how", "plain"), [("one memory", "one parameter"), ("transposed", "written out")])
@pytest.mark.parametrize("name", ["average", "worst", "hessian"])
def test_weights_that_share_memory_get_the_gradient_of_all_their_uses(data, name, how, plain):
    found, expected = (MEASURES[name](Tied(kind), *data) for kind in (how, plain))
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["average", "worst", "hessian"])
def test_a_module_whose_copy_keeps_its_layers_is_left_as_it_is(data, name):
    class Kept(nn.Linear):
        def __deepcopy__(self, memo):
            return self

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), Kept(16, 8), nn.ReLU(), nn.Linear(8, 4)).train()
    before = copy.deepcopy(model.state_dict())
    MEASURES[name](model, *data)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_checkpointed_layer_keeps_its_second_derivatives(data):
    class Attention(nn.Module):
        def __init__(self, checkpointed):
            super().__init__()
            torch.manual_seed(0)
            self.qkv, self.out, self.checkpointed = nn.Linear(4, 12), nn.Linear(16, 4), checkpointed

        def attend(self, h):
            return F.scaled_dot_product_attention(*self.qkv(h).chunk(3, -1))

        def forward(self, x):
            rows = x[:, 0]
            h = checkpoint(self.attend, rows, use_reentrant=False) if self.checkpointed else self.attend(rows)
            return self.out(h.flatten(1))

    found, expected = (hessian_eigenvalues(Attention(on), *data, k=2).largest for on in (True, False))
    assert found == pytest.approx(expected, rel=1e-4)


def test_arrays_are_restored_where_numpy_raises(data):
    class Array(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.lock = linear(), threading.Lock()  # no copy can be made
            self.kernel = np.random.default_rng(1).standard_normal((16, 16)).astype(np.float32)
            self.kernel[0, 0] = 1e-40

        def forward(self, x):
            return self.net(F.linear(x.flatten(1), torch.as_tensor(self.kernel)))

    model = Array()
    before = model.kernel.copy()
    with np.errstate(all="raise"), pytest.warns(MeasurementWarning, match="kernel"):
        average_flatness(model, *data, attack=None, samples=2)
    assert (model.kernel == before).all()


def test_arrays_in_files_are_not_written_to(data, tmp_path):
    class Mapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.lock = linear(), threading.Lock()
            self.kernel = np.memmap(tmp_path / "kernel", np.float32, "w+", shape=(16, 16))

        def forward(self, x):
            assert (self.kernel == 0).all()
            return self.net(x.flatten(1) + F.linear(x.flatten(1), torch.as_tensor(self.kernel)))

    average_flatness(Mapped(), *data, attack=None, samples=2)


@pytest.mark.parametrize("bound", [-1.0, 0.0, 0.01])
def test_a_bound_below_the_weights_is_refused(data, bound):
    with pytest.raises(ConfigError, match=r"weight_bound: .* but the model has weights up to 0\."):
        average_flatness(linear(), *data, attack=None, samples=2, weight_bound=bound)


def test_tensors_in_one_memory_move_together(data):
    x, y = data
    model = Parts()
    average = average_flatness(model, x, y, attack=None, samples=3)
    assert average.perturbed.isfinite().all()
    net = InferenceModel(model, x[:2])
    net.require_exact()
    first = next(n for n in ("view", "one.bias") if n in net.perturbed)
    net.refresh({first: torch.full((4,), 7.0)})
    assert torch.equal(net.read(["view"])[0], net.read(["one.bias"])[0])


def test_a_spectrum_that_ends_at_zero(monkeypatch):
    """A linear model's Hessian is positive semi-definite: no relative tolerance is met at 0."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(200, 400, generator=g), torch.randint(4, (200,), generator=g)
    torch.manual_seed(0)
    model = nn.Linear(400, 4)
    monkeypatch.setattr(spectrum, "RESTARTS", 5)
    with pytest.warns(MeasurementWarning, match="eigenvalues near 0"):
        found = hessian_eigenvalues(model, x, y, k=2)
    assert not found.converged
    p = model(x).softmax(1).detach()
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    matrix = torch.einsum("nij,nk,nl->ikjl", curvature, x, x).reshape(1600, 1600) / 200
    assert found.largest == pytest.approx(torch.linalg.eigvalsh(matrix)[-1].item(), rel=0.01)
    assert abs(found.smallest) <= 0.01 * found.largest


def test_a_wrong_second_derivative_is_noticed(data):
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.tanh()

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            return gradient * (1 - x.detach().tanh().square()) * (1 + (x - x.detach()).roll(1, 1))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), _Applied(Wrong), nn.Linear(6, 4))
    with pytest.raises(ConfigError, match="not symmetric"):
        hessian_eigenvalues(model, *data, k=2)


class _Applied(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function.apply(x)


def test_gradients_that_share_memory_are_those_of_ones_that_do_not(measure, data):
    """A sum gives each of its inputs the same number, which torch keeps once."""

    class Summed(nn.Module):
        def __init__(self, spread):
            super().__init__()
            self.net, self.shift, self.spread = linear(), nn.Parameter(torch.ones(4)), spread

        def forward(self, x):
            total = self.spread(x).flatten(1).sum(1, keepdim=True) + self.spread(self.shift).sum()
            return self.net(torch.zeros_like(x)) + total * torch.arange(4.0)

    shared, apart = (measure(Summed(way), *data) for way in (lambda t: t, lambda t: t.clone() * 1.0))
    assert shared == pytest.approx(apart, rel=1e-6)


def test_a_lazy_layer_without_weights_is_named(measure, data):
    with pytest.raises(ConfigError, match=r"model: 1\.weight has no values yet"):
        measure(nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), *data)


def test_weights_that_are_used_and_inputs_that_are_not_are_refused(data):
    class Blind(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = linear()

        def forward(self, x):
            return self.net(x.detach()) * nn.Parameter(torch.ones(4))

    with pytest.raises(ConfigError, match="no gradient comes to its inputs"):
        ATTACK(Blind(), *data)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model": lambda x: x}, "model: function given; expected a torch.nn.Module"),
        ({"y": [0] * 9}, "y: list given; expected a tensor"),
        ({"y": torch.tensor(3)}, "y: a single number given; expected a tensor"),
        (
            {"x": torch.rand(9, 1, 4, 4).to_sparse()},
            "x: torch.sparse_coo on cpu, 4-d given; expected a tensor",
        ),
        ({"batch_size": -1}, "batch_size: -1 given, but it must be at least 1"),
        ({"batch_size": 0}, "batch_size: 0 given, but it must be at least 1"),
    ],
)
@pytest.mark.parametrize("name", ["pgd", "average", "worst", "hessian"])
def test_arguments_of_another_kind_are_named(data, name, changed, words):
    given = {"model": linear(), "x": data[0], "y": data[1], "batch_size": 4} | changed
    calls = {
        "pgd": ATTACK,
        "average": functools.partial(average_flatness, attack=ATTACK, samples=1),
        "worst": functools.partial(worst_flatness, attack=ATTACK, steps=1, restarts=1),
        "hessian": functools.partial(hessian_eigenvalues, k=2),
    }
    with pytest.raises(ValueError, match=words):
        calls[name](**given)


def test_weights_that_no_gradient_comes_to_have_no_hessian(data):
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = linear()

        def forward(self, x):
            with torch.no_grad():
                return self.net(x)

    with pytest.raises(ConfigError, match="no gradient comes to its weights"):
        hessian_eigenvalues(Detached(), *data, k=2)


def test_a_network_that_calls_torch_func_has_a_hessian(data):
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = linear()

        def forward(self, x):
            slope = torch.func.grad(lambda t: t.square().sum())(x)
            return self.net(x + slope)

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = linear()

        def forward(self, x):
            return self.net(3 * x)

    found, expected = (hessian_eigenvalues(model, *data, k=2).largest for model in (Inner(), Outer()))
    assert found == pytest.approx(expected, rel=1e-4)
