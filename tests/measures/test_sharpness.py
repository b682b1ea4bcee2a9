"""Each measure against closed forms or a dense computation (others in tests/reference), and invariances."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robust_flatness import evaluation, sharpness
from robust_flatness.attacks import PGD

CLASSES = 3


def data(n=24, features=4, seed=0):
    stream = torch.Generator().manual_seed(seed)
    x = torch.rand(n, features, generator=stream, dtype=torch.float64)
    return x, torch.randint(CLASSES, (n,), generator=stream)


def seeded(*layers):
    stream = torch.Generator().manual_seed(1)
    model = nn.Sequential(*layers).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=stream, dtype=p.dtype))
    return model


@pytest.fixture
def linear():
    return seeded(nn.Linear(4, CLASSES))


@pytest.fixture
def smooth():
    return seeded(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, CLASSES))


@pytest.fixture
def relu():
    return seeded(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, CLASSES, bias=False))


def rescaled(model, factor):
    """The same function of a ReLU network: the first layer times `factor`, the last one divided by it."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight.mul_(factor)
        other[2].weight.div_(factor)
    return other


def test_gradient_norms_of_a_linear_model(linear):
    x, y = data()
    residual = linear(x).detach().softmax(1) - F.one_hot(y, CLASSES)
    by_weight, by_bias = residual.t() @ x / len(x), residual.mean(0)
    expected = (by_weight.square().sum() + by_bias.square().sum()).sqrt().item()
    assert sharpness.gradient_norm(linear, x, y, batch_size=7).value == pytest.approx(expected)
    by_input = (residual @ linear[0].weight.detach()).abs().sum(1).mean().item()
    assert sharpness.input_gradient_norm(linear, x, y, batch_size=7).value == pytest.approx(by_input)


def test_robust_margin_of_a_linear_model_is_that_of_the_worst_corner():
    model = seeded(nn.Linear(4, 2))
    x, y = data()
    x, y = 0.3 + 0.4 * x, y % 2
    weight = model[0].weight.detach()
    logits = model(x).detach()
    sign = torch.where(y == 0, 1.0, -1.0).double()
    worst = sign * (logits[:, 0] - logits[:, 1]) - 0.1 * (weight[0] - weight[1]).abs().sum()
    found = sharpness.margin(model, x, y, loss=PGD(0.1, 0.05, 8), percentile=10)
    assert found.value == pytest.approx(worst.quantile(0.1).item())


def rises(model, x, y, deltas):
    """Mean loss at w + each delta (flat), minus that at w."""
    w = nn.utils.parameters_to_vector(model.parameters()).detach()
    other, values = copy.deepcopy(model), []
    with torch.no_grad():
        base = F.cross_entropy(model(x), y)
        for delta in deltas:
            nn.utils.vector_to_parameters(w + delta, other.parameters())
            values.append((F.cross_entropy(other(x), y) - base).item())
    return values


def test_one_step_of_sam_is_along_the_gradient(smooth):
    x, y = data()
    gradient = torch.autograd.grad(F.cross_entropy(smooth(x), y), list(smooth.parameters()))
    flat = torch.cat([g.flatten() for g in gradient])
    (expected,) = rises(smooth, x, y, [0.3 * flat / flat.norm()])
    assert sharpness.sam(smooth, x, y, rho=0.3, steps=1).value == pytest.approx(expected)


def test_twenty_steps_of_sam_find_the_worst_of_a_ball_that_is_searched_through():
    model = seeded(nn.Linear(1, 2, bias=False))
    x, y = data(features=1)
    y = y % 2
    angles = torch.linspace(0, 2 * torch.pi, 2000, dtype=torch.float64)
    circle = [0.5 * torch.stack([a.cos(), a.sin()]) for a in angles]
    expected = max(rises(model, x, y, circle))
    found = sharpness.sam(model, x, y, rho=0.5)
    assert found.value == pytest.approx(expected, rel=1e-4)
    assert found.value >= sharpness.sam(model, x, y, rho=0.5, steps=1).value - 1e-12


def test_adaptive_worst_case_is_the_worst_corner_of_a_convex_loss():
    model = seeded(nn.Linear(1, CLASSES, bias=False))
    x, y = data(n=8, features=1)
    w = model[0].weight.detach().flatten()
    corners = [0.2 * w.abs() * torch.tensor(s).double() for s in itertools.product((-1, 1), repeat=3)]
    # m = n / 8: each example is a part of its own
    expected = [max(rises(model, x[i : i + 1], y[i : i + 1], corners)) for i in range(8)]
    found = sharpness.adaptive_linf_worst(model, x, y, rho=0.2)
    assert found.value == pytest.approx(sum(expected) / 8)


def test_adaptive_average_case_is_half_the_weighted_trace_for_small_noise(linear):
    x, y = data()
    weight, bias = (p.detach() for p in linear.parameters())
    p = linear(x).detach().softmax(1)
    diagonal = (p * (1 - p)).t() / len(x)  # of the Hessian, by logits
    trace = (weight.square() * (diagonal @ x.square())).sum() + (bias.square() * diagonal.sum(1)).sum()
    found = sharpness.adaptive_average(linear, x, y, rho=0.02, samples=1000)
    assert abs(found.value - 0.02**2 * trace.item() / 2) < 4 * found.standard_error


def test_pacbayes_sigma_is_the_noise_at_which_the_loss_has_risen(smooth):
    x, y = data()
    found = sharpness.pacbayes_sigma(smooth, x, y, rise=0.1, samples=50, iterations=25)
    at = sharpness.adaptive_average(smooth, x, y, rho=found.value**-0.5, samples=50)
    assert at.value == pytest.approx(0.1, abs=1e-4)
    assert sharpness.pacbayes_sigma(smooth, x, y, rise=0.2, samples=50).value < found.value
    assert 0 < found.standard_error < found.value


INVARIANT = {
    "fisher_rao": {}, "relative_flatness": {}, "asam": {"eta": 0.0}, "adaptive_linf_worst": {"rho": 0.05},
    "adaptive_average": {"rho": 0.05}, "pacbayes_sigma": {}, "input_gradient_norm": {}, "margin": {},
    "spectral_product": None, "weight_curvature_index": {},
}  # fmt: skip
CHANGED = {
    "hessian_eigenvalue": {}, "hessian_trace": {}, "fisher_trace": {}, "gradient_norm": {}, "sam": {},
    "weight_norm": None,
}  # fmt: skip


@pytest.mark.parametrize("name", [*INVARIANT, *CHANGED])
def test_invariance_to_rescaled_layers(name, relu):
    options, function = (INVARIANT | CHANGED)[name], getattr(sharpness, name)
    arguments = () if options is None else data()
    models = (relu, rescaled(relu, 3.0))
    before, after = (function(model, *arguments, **(options or {})).value for model in models)
    assert (after == pytest.approx(before, rel=1e-6)) == (name in INVARIANT)
    assert (after == pytest.approx(before, rel=0.05)) == (name in INVARIANT)


def test_norms_of_the_weights(relu):
    first, last = relu[0].weight.detach(), relu[2].weight.detach()
    flat = torch.cat([first.flatten(), last.flatten()])
    assert sharpness.weight_norm(relu).value == pytest.approx(flat.norm().item())
    start = {"0.weight": torch.zeros_like(first), "2.weight": last}
    assert sharpness.distance_from_init(relu, start).value == pytest.approx(first.norm().item())
    product = torch.linalg.svdvals(first)[0] * torch.linalg.svdvals(last)[0]
    assert sharpness.spectral_product(relu).value == pytest.approx(product.item())


MEASURES = [name for name in (*INVARIANT, *CHANGED) if name not in ("weight_norm", "spectral_product")]


@pytest.mark.parametrize("name", MEASURES)
def test_measures_leave_the_model_and_repeat(name):
    x, y = data()
    x = x.view(-1, 1, 2, 2)
    model = seeded(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, CLASSES))
    model.train()
    before = copy.deepcopy(model.state_dict())
    function = getattr(sharpness, name)
    attack = PGD(0.1, 0.05, 3)
    first, second = (function(model, x, y, loss=attack, seed=3) for _ in range(2))
    assert first == second
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_an_unknown_loss_is_refused(linear):
    with pytest.raises(ValueError, match="loss: 'rloss' given"):
        sharpness.fisher_trace(linear, *data(), loss="rloss")


def test_names_of_earlier_versions_stay_importable():
    assert sharpness.SharpnessResult is sharpness.Estimate
    assert evaluation.Losses is not None


@pytest.mark.parametrize(("name", "option"), [
    ("sam", {"rho": -1.0}), ("asam", {"steps": 0}), ("adaptive_linf_worst", {"rho": 0.0}),
    ("adaptive_average", {"samples": 0}), ("pacbayes_sigma", {"iterations": 0}),
])  # fmt: skip
def test_numbers_that_are_not_positive_are_refused(linear, name, option):
    (field, value), (x, y) = *option.items(), data()
    with pytest.raises(ValueError, match=rf"{field}: {value} given, but it must be > 0"):
        getattr(sharpness, name)(linear, x, y, **option)
