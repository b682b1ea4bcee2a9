"""Attacks in training, on models whose iterates are known in closed form."""

import copy

import pytest
import torch
from torch import nn

from robust_flatness.attacks import PGD, random_start
from robust_flatness.network import Network
from robust_flatness.training.attack import TrainingAttack, pgd_tau
from robust_flatness.training.loop import Training
from robust_flatness.training.objectives import Batch, make_objective

CENTRE = 0.5


class Threshold(nn.Module):
    """Images of one pixel; class 1 where it is above `CENTRE`, so every step on label 0 goes up."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))

    def forward(self, x):
        score = self.slope * (x.flatten(1) - CENTRE)
        return torch.cat([-score, score], 1)


def pixels(count):
    x = torch.rand(count, 1, 1, 1, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return 0.2 + 0.6 * x


@pytest.mark.parametrize("tau", [0, 2])
def test_pgd_tau_stops_tau_steps_after_the_flip(tau):
    epsilon, size, steps = 0.2, 0.01, 7
    x = pixels(400)
    y = torch.zeros(400, dtype=torch.int64)
    start = random_start(x, epsilon, torch.Generator().manual_seed(1)).flatten()
    net = Network(Threshold())
    found = pgd_tau(net, x, y, PGD(epsilon, size, steps), tau, torch.Generator().manual_seed(1)).flatten()

    iterates = start + size * torch.arange(steps + 1, dtype=torch.float64)[:, None]
    iterates = torch.minimum(iterates, x.flatten() + epsilon)
    wrong = iterates > CENTRE
    first = torch.where(wrong.any(0), wrong.int().argmax(0), steps)
    expected = iterates.gather(0, (first + tau).clamp(max=steps)[None])[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    # all three kinds occur: misclassified at the start, flipped on the way, never flipped
    assert {bool(v) for v in wrong[0]} == {True, False}
    assert (first[~wrong[0]] < steps).any()
    assert (~wrong.any(0)).any()


def attack_of(make_job, **settings):
    spec = make_job(epsilon=0.2, step_size=0.05, steps=4, **settings).training
    return TrainingAttack(spec, make_objective(spec))


def batch_of(x, y):
    return Batch(x, y, y, torch.ones(len(y), dtype=torch.bool))


def test_the_predicted_label_decides_the_direction(make_job):
    attack = attack_of(make_job, attack_predicted_label=True)
    x, y = pixels(50), torch.zeros(50, dtype=torch.int64)
    predicted = torch.arange(50) % 2
    predict = lambda x: nn.functional.one_hot(predicted, 2).to(x)  # noqa: E731
    stream = torch.Generator().manual_seed(0)
    x_adv, attacked = attack(Network(Threshold()), predict, batch_of(x, y), stream)
    start = random_start(x, 0.2, torch.Generator().manual_seed(0))
    moved = (x_adv - start).flatten()
    room = 0.2 - (start - x).flatten().abs() > 1e-6
    assert (moved[(predicted == 0) & room] > 0).all()
    assert (moved[(predicted == 1) & room] < 0).all()
    assert attacked.all()


def test_a_share_of_the_batch_is_attacked(make_job):
    attack = attack_of(make_job, objective="self-supervision", adversarial_fraction=0.3)
    attack.objective.classes = 2
    net = Network(nn.Sequential(nn.Flatten(), nn.Linear(1, 6).double()))
    x, y = pixels(40), torch.zeros(40, dtype=torch.int64)
    chosen = []
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        x_adv, attacked = attack(net, None, batch_of(x, y), generator)
        assert attacked.sum() == 12
        assert (x_adv[~attacked] == x[~attacked]).all()
        assert (x_adv[attacked] != x[attacked]).all()
        chosen.append(attacked)
    # a new random share each time: every example's turn comes (missed 30 times: 0.7^30)
    assert torch.stack(chosen).any(0).all()


@pytest.mark.parametrize("objective", ["at", "trades", "mart", "self-supervision"])
def test_attacks_run_in_evaluation_mode_and_see_true_labels(objective, dataset, make_job):
    """Equal to PGD on a copy in evaluation mode, although updates see other labels."""
    job = make_job(objective=objective, objective_weight=1, label_noise=1.0)
    run = Training(job, dataset)
    run.epoch(0)
    batch = next(run._batches(1))
    assert not torch.equal(batch.target, batch.y)
    before = {name: tensor.clone() for name, tensor in run.network.state_dict().items()}
    stream = torch.Generator().manual_seed(9)
    found, _ = run.attack(run.inference.at(run.network), run._predict, batch, stream)
    for name, tensor in run.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert run.network.training

    frozen = copy.deepcopy(run.network).eval()
    target, loss = run.objective.attack_goal(frozen, batch)
    attack = PGD(0.1, 0.05, 2)
    start = attack.start(batch.x, torch.Generator().manual_seed(9))
    expected = attack.search(Network(frozen), batch.x, target, start, loss).x_adv
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    if objective != "trades":
        assert torch.equal(target, batch.y)


@pytest.mark.parametrize("settings", [
    {}, {"objective": "trades", "objective_weight": 1}, {"objective": "mart", "objective_weight": 1},
    {"weight_perturbation": 0.01}, {"stop_after_flip": 1}, {"attack_incorrect": False},
    {"attack_predicted_label": True},
    {"objective": "self-supervision", "objective_weight": 1, "adversarial_fraction": 0.5},
], ids=str)  # fmt: skip
def test_an_epoch_in_the_l2_norm_perturbs_within_its_ball(settings, dataset, make_job):
    run = Training(make_job(norm="l2", epsilon=0.5, step_size=0.2, **settings), dataset)
    attack, moved = run.attack, []

    def watching(network, predict, batch, generator):
        x_adv, attacked = attack(network, predict, batch, generator)
        assert 0 <= x_adv.min() <= x_adv.max() <= 1
        moved.append((x_adv - batch.x).flatten(1))
        return x_adv, attacked

    run.attack = watching
    assert run.epoch(0)["train_loss"] > 0
    assert 0.3 < torch.cat(moved).norm(dim=1).max() <= 0.5 + 1e-6
    assert torch.cat(moved).abs().max() > 0.5 / 8  # farther than in an L-infinity ball within this one


@pytest.mark.parametrize("setting", [{"attack_incorrect": False}, {"attack_predicted_label": True}, {}])
def test_running_statistics_count_the_clean_pass_of_the_prediction(setting, dataset, make_job):
    """In float64, against means written out: of the clean batch if it is passed, then the adversarial one."""
    run = Training(make_job(**setting), dataset)
    run.network.double()
    run.streams, run.sums = {"attack": torch.Generator().manual_seed(0)}, torch.zeros(4, dtype=torch.float64)
    x, y = dataset.images("train", 8).double(), dataset.labels("train", 8)
    seen, stem = [], run.network.stem
    hook = stem.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    run._gradient(Batch(x, y, y, torch.ones(8, dtype=torch.bool)))
    hook.remove()
    norm = run.network.stem_norm
    assert len(seen) == norm.num_batches_tracked == (2 if setting else 1)
    if setting:
        torch.testing.assert_close(seen[0], stem(run.network.whitening(x)).detach())
    mean = torch.zeros_like(norm.running_mean)
    for output in seen:
        mean = 0.9 * mean + 0.1 * output.mean((0, 2, 3))
    torch.testing.assert_close(norm.running_mean, mean)
