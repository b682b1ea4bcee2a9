"""Anyone's model: measured right, or refused in one error; never silently wrong."""

import functools
import random
import threading
import types
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

from robust_flatness.architectures import build_model
from robust_flatness.attacks import PGD
from robust_flatness.config import AutoAttackSpec, ModelSpec
from robust_flatness.errors import ConfigError, MeasurementWarning, NonFiniteError
from robust_flatness.evaluation import evaluate_robustness
from robust_flatness.flatness import average_flatness, hessian_eigenvalues, worst_flatness
from robust_flatness.network import Network

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


TARGETS = {
    "int32": lambda y: y.int(),
    "uint8": lambda y: y.byte(),
    "whole floats": lambda y: y.float(),
    "column": lambda y: y[:, None],
    "one-hot": lambda y: F.one_hot(y, 4),
    "one-hot floats": lambda y: F.one_hot(y, 4).half(),
    "one-hot for unused classes": lambda y: F.one_hot(y, 6),
}


@pytest.mark.parametrize("form", TARGETS)
def test_targets_of_clear_meaning_are_converted(data, form):
    x, y = data
    assert MEASURES["average"](linear(), x, TARGETS[form](y)) == MEASURES["average"](linear(), x, y)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda y: y.clone().index_fill_(0, torch.tensor([3]), -100), "label -100 of example 3"),
        (lambda y: y.clone().index_fill_(0, torch.tensor([5]), 4), "label 4 of example 5, but .* 4 classes"),
        (lambda y: y + 0.5, "not whole"),
        (lambda y: y.float() * torch.nan, "not whole"),
        (lambda y: F.one_hot(y, 4) * 2, "one-hot"),
        (lambda y: y[:-1], "9 inputs and 8 targets"),
        (lambda y: y.tolist(), "y: list given; expected a tensor"),
        (lambda y: torch.tensor(3), "y: a single number given; expected a tensor"),
    ],
)
def test_other_targets_are_refused(measure, data, change, words):
    with pytest.raises(ConfigError, match=words):
        measure(linear(), data[0], change(data[1]))


def test_other_arguments_are_named(measure, data):
    x, y = data
    with pytest.raises(ConfigError, match=r"model: function given; expected a torch\.nn\.Module"):
        measure(lambda x: x, x, y)
    with pytest.raises(ConfigError, match=r"x: torch\.sparse_coo on cpu, 4-d given; expected a tensor"):
        measure(linear(), x.to_sparse(), y)
    x[4, 0, 0, 0] = torch.nan
    with pytest.raises(ConfigError, match="NaN in input 4"):
        measure(linear(), x, y)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_no_numbers_are_named(measure, data, bad):
    x, y = data
    x[6] = 0
    model = Through()
    shift = (model.net[1].bias - model.net[1].bias[0]).detach()  # the logits of black images
    model.after = lambda z: torch.where((z - z[:, :1] - shift).abs().amax(1, keepdim=True) < 1e-6, bad, z)
    with pytest.raises(NonFiniteError):
        measure(model, x, y)


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
def test_properties_that_mislead_attacks_are_warned_of(data, name):
    model, words = WARNED[name]
    with pytest.warns(MeasurementWarning, match=words):
        MEASURES["robustness"](model, *data)


@pytest.mark.parametrize(
    "after", [lambda z: z, lambda z: z.sigmoid() / 2.5, lambda z: z.sigmoid() * 1.5, torch.tanh]
)
@pytest.mark.filterwarnings("error::robust_flatness.errors.MeasurementWarning")
def test_outputs_of_similar_range_are_not_mistaken_for_a_sigmoids(data, after):
    MEASURES["robustness"](Through(after=after), *data)


def test_the_checks_of_autoattack_are_run(data):
    x, _ = data

    def optimised(x):
        with torch.enable_grad():
            delta = torch.zeros_like(x, requires_grad=True)
            (step,) = torch.autograd.grad((x + delta).square().sum(), delta)
        return x - 0.01 * step

    y = linear()(x).argmax(1)
    spec = AutoAttackSpec(version="reduced", attacks=("apgd-ce", "fab-t", "square"), iterations=2, queries=60)
    cases = {
        "dynamic defense": Through(optimised),
        "Square Attack has decreased": Through(lambda x: (x * 255).round() / 255),
        "points with zero gradient": Through(lambda x: (x * 255).round() / 255),
        "randomized defense": Through(lambda x: x + 0.1 * torch.randn_like(x)),
        "probability distribution": Through(after=lambda z: z.softmax(1)),
    }
    for words, model in cases.items():
        with pytest.warns(MeasurementWarning, match=f"autoattack: .*{words}"):
            evaluate_robustness(model, x, y, attack=ATTACK, autoattack=spec)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_callers_modes_make_no_difference(measure, data, mode):
    x, y = data
    expected = measure(linear(), x, y)
    model = linear().train()
    with mode():
        assert measure(model, x + 0, y + 0) == expected
    with torch.autocast("cpu", torch.bfloat16):
        assert measure(model, x, y) == expected


def test_global_random_states_stay(measure, data):
    model = Through(lambda x: x + 0.01 * torch.rand_like(x) * random.random())
    random.seed(0)
    states = torch.get_rng_state(), random.getstate()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        measure(model, *data)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


@pytest.mark.parametrize("squeezed", [True, False])
def test_results_do_not_depend_on_the_size_of_the_last_batch(data, squeezed):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.out = nn.Conv2d(1, 3, 4), nn.Linear(3, 4)

        def forward(self, x):
            return self.out(self.conv(x).squeeze() if squeezed else self.conv(x).flatten(1))

    run = functools.partial(evaluate_robustness, Net(), *data, attack=ATTACK, autoattack=False)
    values = [run(batch_size=size).rloss_pgd for size in (1, 4, 9)]
    assert values == pytest.approx([values[0]] * 3)


class Stateful(nn.Module):
    """Keeps counters and lists, and a recurrent state if asked to."""

    def __init__(self, recurrent=False):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.norm, self.seen, self.state = linear(), nn.BatchNorm1d(16), [], None
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.recurrent = recurrent

    def forward(self, x):
        self.calls += 1
        self.seen.append(len(x))
        x = self.norm(x.flatten(1))
        if self.recurrent:
            self.state = x.detach() if self.state is None else self.state + x.detach()
            x = x + self.state
        return self.net(x)


def test_nothing_of_the_model_changes(measure, data):
    model = Stateful()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    measure(model, *data)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert (model.seen, model.state) == ([], None)
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def _eval_raises():
    model = linear()
    model.eval = types.MethodType(lambda self: exec("raise NotImplementedError('no modes')"), model)
    return model


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


def _exit(x):
    raise SystemExit(3)


def _reentrant(x):
    return checkpoint(torch.tanh, x, use_reentrant=True)


REFUSED = {
    "a lock": (lambda: _with(lock=threading.Lock()), "deep copy failed: TypeError: cannot pickle"),
    "a copy that shares layers": (lambda: nn.Sequential(nn.Flatten(), KeptByCopies(16, 4)), "shares modules"),
    "no evaluation mode": (_eval_raises, "evaluation mode failed: NotImplementedError: no modes"),
    "forward that exits": (lambda: Through(_exit), "forward pass on images .* failed: SystemExit: 3"),
    "reentrant checkpoint": (lambda: Through(_reentrant), "gradient by the input failed"),
    "batch norm without statistics": (
        lambda: nn.Sequential(linear(), nn.BatchNorm1d(4, track_running_stats=False)),
        r"forward pass on images \(1, 1, 4, 4\) .* failed: ValueError",
    ),
    "state of a batch": (lambda: Stateful(recurrent=True), r"forward pass on images \(1, .* failed|output"),
    "forward of another module": (_patched, "weights cannot be exchanged"),
    "scripted": (lambda: torch.jit.script(linear()), "scripted"),
    "lazy": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), "uninitialised tensors"),
    "complex": (lambda: _with(w=nn.Parameter(torch.ones(3, dtype=torch.cfloat))), "complex"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_models_that_cannot_be_measured_are_refused_unchanged(measure, data, name):
    make, words = REFUSED[name]
    model = make()
    state = {} if name == "lazy" else {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ConfigError, match=words):
        measure(model, *data)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    assert model.training


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("used", [False, True])
def test_weights_computed_by_hooks_and_kept_activations_are_copied(measure, data, used):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.normed = nn.utils.weight_norm(nn.Linear(16, 16))
            self.spectral = nn.utils.spectral_norm(nn.Linear(16, 16))
            self.pruned = prune.l1_unstructured(nn.Linear(16, 4), "weight", 0.3)
            self.kept = []

        def forward(self, x):
            self.features = self.spectral(self.normed(x.flatten(1)).tanh())
            self.kept = [self.features]
            return self.pruned(self.features)

    expected, model = measure(Net().eval(), *data), Net().eval()
    if used:
        model(data[0])
    assert measure(model, *data) == pytest.approx(expected, rel=1e-5)


class Parts(nn.Module):
    """One of each kind of parameter."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4)
        self.layer_norm2d = type("LayerNorm2d", (nn.Module,), {})()
        self.layer_norm2d.gain = nn.Parameter(torch.ones(4, 1, 1))
        self.gain = nn.Parameter(torch.ones(4))  # of a normalising function
        self.count = nn.Parameter(torch.zeros(3, dtype=torch.int64), requires_grad=False)
        self.frozen = nn.Parameter(torch.ones(()), requires_grad=False)
        self.one, self.same = nn.Linear(4, 4), nn.Linear(4, 4)
        self.same.weight = self.one.weight

    def forward(self, x):
        h = self.norm(self.conv(x)).mean((2, 3)) * self.layer_norm2d.gain.flatten()
        return self.same(F.layer_norm(self.one(h), (4,), self.gain)) * self.frozen


def test_parameters_that_are_perturbed(data):
    names = ["conv.weight", "conv.bias", "one.weight", "one.bias", "same.bias"]
    assert Network(Parts(), data[0]).layers == names
    assert Network(linear().requires_grad_(False), data[0]).layers == ["1.weight", "1.bias"]


class Amplified(nn.Module):
    """Convolutions whose gradient differs where images lie channels-last, a little or a lot."""

    def __init__(self, error):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4))
        self.error = error

    def forward(self, x):
        last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        assert self.error < 1 or not last, "inputs must be contiguous"
        return self.net(x + self.error * (x - x.detach()) if x.requires_grad and last else x)


@pytest.mark.parametrize(("error", "kept"), [(0.0, True), (0.01, True), (0.5, False), (1.0, False)])
def test_channels_last_is_kept_where_it_changes_gradients_by_rounding_alone(error, kept):
    x = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert Network(Amplified(error), x)._shared.trial.channels_last is kept


class Tuned(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8)).requires_grad_(False)
        self.head = nn.Linear(8, 4)
        self.teacher = nn.Linear(16, 16).requires_grad_(False)  # of no influence on the logits

    def forward(self, x):
        return self.head(self.body(x))


def test_frozen_weights_are_warned_of_unless_all_are(data):
    with pytest.warns(MeasurementWarning, match=r"2 frozen parameters .*: body\.1\.weight, body\.1\.bias;"):
        average_flatness(Tuned(), *data, attack=None, samples=2)
    spec = ModelSpec(name="small-resnet", width=4)
    model = build_model(spec, 4, (0.5,), (0.3,), torch.Generator().manual_seed(0))
    model.stem.requires_grad_(False)
    with pytest.warns(MeasurementWarning, match="2 frozen parameters"):
        average_flatness(model, *data, attack=None, samples=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", MeasurementWarning)
        average_flatness(Tuned().requires_grad_(False), *data, attack=None, samples=2)


@pytest.mark.filterwarnings("ignore")
def test_a_model_without_weights_to_perturb_is_refused(data):
    tuned = Tuned()
    tuned.head.requires_grad_(False)
    tuned.body[2].requires_grad_(True)  # as where batch norms alone are adapted
    with pytest.raises(ConfigError, match="no parameters to perturb"):
        average_flatness(tuned, *data, attack=None, samples=2)


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
def test_weights_that_share_memory_have_one_value_and_the_gradient_of_all_uses(measure, data, how, plain):
    found, expected = (measure(Tied(kind), *data) for kind in (how, plain))
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_checkpointed_layer_keeps_its_derivatives(measure, data):
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

    found, expected = (measure(Attention(on), *data) for on in (True, False))
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_model_without_gradient_by_its_inputs_is_refused_by_attacks_alone(data):
    class Blind(Through):
        def forward(self, x):
            return self.net(x.detach())

    with pytest.raises(ConfigError, match="no gradient comes to its inputs"):
        ATTACK(Blind(), *data)
    assert evaluate_robustness(Blind(), *data, attack=None, autoattack=False).ce > 0
