import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robust_flatness.architectures import build_model
from robust_flatness.attacks import PGD, random_start
from robust_flatness.attacks.pgd import cross_entropy
from robust_flatness.config import ModelSpec
from robust_flatness.network import Network

EPSILON = 0.1


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def data():
    g = generator(1)
    return torch.rand(12, 2, 6, 6, dtype=torch.float64, generator=g), torch.randint(0, 4, (12,), generator=g)


@pytest.fixture
def model():
    spec = ModelSpec(name="small-resnet", width=4)
    net = build_model(spec, 4, [0.5, 0.5], [0.3, 0.3], generator(2)).double()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(0.2)
    return net


def test_reaches_the_optimum_of_a_linear_model(data):
    """For two classes the optimum is x - epsilon sign(w_y - w_other), clipped to [0, 1]."""
    x, y = data[0].flatten(1), data[1] % 2
    linear = nn.Linear(x.shape[1], 2, dtype=torch.float64)
    torch.nn.init.normal_(linear.weight, generator=generator(3))
    difference = linear.weight[y] - linear.weight[1 - y]
    optimum = (x - EPSILON * difference.sign()).clamp(0, 1)
    attack = PGD(EPSILON, EPSILON / 4, 8)  # eight steps cross the whole ball
    found = attack(linear, x, y)
    torch.testing.assert_close(found.loss, F.cross_entropy(linear(optimum), y, reduction="none"))
    torch.testing.assert_close(found.x_adv, optimum)


def test_every_iterate_is_in_the_ball_and_the_box(data):
    """The logits are the inputs."""
    (x, y), seen = data, []

    def loss(logits, target):
        seen.append(logits.detach())
        return cross_entropy(logits, target)

    PGD(EPSILON, EPSILON, 5, restarts=2)(nn.Flatten(), x, y, loss=loss)
    iterates = torch.cat(seen)
    assert len(iterates.unique(dim=0)) > 2 * len(x)
    distances = (iterates[:, None] - x.flatten(1)).abs().amax(dim=2)
    assert distances.amin(dim=1).max() <= EPSILON + 1e-12
    assert 0 <= iterates.min() <= iterates.max() <= 1


@pytest.mark.parametrize("batch_size", [None, 1, 5, 100])
def test_keeps_the_highest_loss_of_all_iterates_and_restarts(model, data, batch_size):
    """Each start followed to its last step by itself, and the highest loss and any error kept."""
    x, y = data
    attack = PGD(EPSILON, 0.9 * EPSILON, 4, restarts=3)  # overshoots
    found = attack(model, x, y, batch_size, generator())
    net, g, seen = Network(model), generator(), []

    def recording(logits, target):
        losses = cross_entropy(logits, target)
        seen.append((losses.detach().clone(), logits.argmax(dim=1) != target))
        return losses

    recording(net(x), y)
    for _ in range(3):
        attack.search(net, x, y, random_start(x, EPSILON, g), recording)
    losses, errors = map(torch.stack, zip(*seen, strict=True))
    torch.testing.assert_close(found.loss, losses.amax(dim=0), rtol=1e-9, atol=1e-12)
    assert torch.equal(found.error, errors.any(dim=0))
    assert ((losses.argmax(dim=0) - 1) % 5 != 4).any()  # not always the last
    with torch.no_grad():
        at_found = cross_entropy(net(found.x_adv), y)
    torch.testing.assert_close(found.loss, at_found, rtol=1e-9, atol=1e-12)


def test_same_generator_same_result_and_no_global_randomness(model, data):
    x, y = data
    attack = PGD(EPSILON, EPSILON / 3, 2)
    state = torch.get_rng_state()
    first, second = (attack(model, x, y, generator=generator(7)) for _ in range(2))
    assert torch.equal(first.x_adv, second.x_adv)
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first.x_adv, attack(model, x, y, generator=generator(8)).x_adv)
    assert torch.equal(attack(model, x, y).x_adv, attack(model, x, y, generator=generator(0)).x_adv)


def test_starts_are_uniform_in_the_ball():
    x = torch.full((1, 1, 100, 100), 0.5, dtype=torch.float64)
    noise = (random_start(x, EPSILON, generator()) - x).flatten() / EPSILON
    assert noise.abs().max() <= 1 + 1e-12
    # mean 0 and variance 1/3 within five standard errors of 10,000 draws
    assert abs(noise.mean()) < 5 * (1 / 3 / 10_000) ** 0.5
    assert abs(noise.var() - 1 / 3) < 5 * (4 / 45 / 10_000) ** 0.5


OUT_OF_RANGE = {"epsilon": -1, "step_size": 0, "steps": 0, "restarts": 0, "precision": "fp8", "norm": "l1"}


@pytest.mark.parametrize("field", OUT_OF_RANGE)
def test_numbers_out_of_range_are_named(field):
    with pytest.raises(ValueError, match=rf"(?s){field}.*input_value='?{OUT_OF_RANGE[field]}'?"):
        PGD(**{"epsilon": 0.1, "step_size": 0.1, "steps": 1, field: OUT_OF_RANGE[field]})
