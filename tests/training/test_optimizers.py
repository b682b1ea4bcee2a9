import pytest
import torch

from robust_flatness.training.optimizers import EntropySGD, Schedule, make_optimizer


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_nesterovs_where_there_is_momentum(momentum, make_job):
    spec = make_job(momentum=momentum, weight_decay=0.01, learning_rate=0.2).training
    optimizer = make_optimizer(spec, [torch.zeros(2, requires_grad=True)])
    expected = {"lr": 0.2, "momentum": momentum, "nesterov": momentum > 0, "weight_decay": 0.01}
    assert type(optimizer) is torch.optim.SGD
    assert expected.items() <= optimizer.param_groups[0].items()


def quadratic(w, curvatures):
    """Closure that sets the gradient of curvature * w^2 / 2, a new curvature at each call."""
    queue = iter(curvatures)

    def closure():
        w.grad = None
        loss = (next(queue) * w**2 / 2).sum()
        loss.backward()
        return loss

    return closure


def test_step_by_hand_without_noise():
    """w = 2, curvatures 1 (its gradient unused), 3, 5; rates 0.1 (inner) and 0.4, decay 0.5, gamma 0.7."""
    w = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    optimizer = EntropySGD([w], lr=0.4, langevin_steps=2, weight_decay=0.5, noise=0, gamma=0.7)
    loss = optimizer.step(quadratic(w, [1, 3, 5]))
    first = 2 - 0.1 * (3 * 2 + 0.5 * 2)
    mean = 0.75 * 2 + 0.25 * first
    second = first - 0.1 * (5 * first + 0.5 * first - 0.7 * (2 - first))
    mean = 0.75 * mean + 0.25 * second
    assert loss.item() == 2.0
    assert w.item() == pytest.approx(2 - 0.4 * (2 - mean + 0.5 * 2), rel=1e-14)


def test_noise_has_the_spread_of_langevin_dynamics():
    """Without gradient, one inner step adds N(0, 2 eta' noise^2)."""
    w = torch.zeros(40_000, dtype=torch.float64, requires_grad=True)
    optimizer = EntropySGD([w], lr=1.0, langevin_steps=1, noise=1e-2, gamma=0, averaging=0, inner_lr=0.08)
    optimizer.noise_generator = torch.Generator().manual_seed(0)

    def closure():
        w.grad = torch.zeros_like(w)
        return torch.zeros(())

    optimizer.step(closure)
    expected = 1e-2 * (2 * 0.08) ** 0.5
    # the spread of a standard deviation over n draws is about sigma / sqrt(2 n); five of them
    assert w.std().item() == pytest.approx(expected, rel=5 / (2 * len(w)) ** 0.5)
    assert abs(w.mean().item()) < 5 * expected / len(w) ** 0.5


def rates(make_job, updates, **settings):
    training = make_job(**settings).training
    return [Schedule(training, updates).learning_rate(i) for i in range(training.epochs * updates)]


@pytest.mark.parametrize(
    ("epochs", "milestones", "drops"),
    [(150, (0.4, 0.6, 0.8), (60, 90, 120)), (150, (140 / 150, 145 / 150), (140, 145)), (10, (0.4,), (4,))],
)
def test_drops_are_by_ten_at_the_first_update_of_a_milestones_epoch(make_job, epochs, milestones, drops):
    values = rates(make_job, 7, epochs=epochs, learning_rate=1, milestones=milestones)
    expected = [0.1 ** sum(update // 7 >= drop for drop in drops) for update in range(7 * epochs)]
    assert values == pytest.approx(expected)


def test_constant_stays(make_job):
    assert {*rates(make_job, 3, schedule="constant", learning_rate=0.01)} == {0.01}


@pytest.mark.parametrize("cycles", [1, 2, 4])
def test_cycles_run_from_zero_to_the_peak_and_back(make_job, cycles):
    values = rates(make_job, 5, schedule="cyclic", cycles=cycles, epochs=4 * cycles, learning_rate=0.2)
    cycle = [*(0.02 * step for step in range(10)), *(0.02 * step for step in range(10, 0, -1))]
    assert values == pytest.approx(cycle * cycles)
