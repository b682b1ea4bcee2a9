"""The loss on planes in weight space, and the plane of a training's snapshots."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robust_flatness.attacks import PGD
from robust_flatness.data import Dataset
from robust_flatness.flatness import loss_plane, principal_plane
from robust_flatness.measures.base import Examples
from robust_flatness.measures.plane import METRICS, PlaneSettings, plane
from robust_flatness.network import Network
from robust_flatness.seeding import derive_seed, generator

ATTACK = PGD(0.1, 0.05, 4)
POINTS = [(0.0, 0.0), (0.5, -0.25), (-2.0, 1.0), (0.0, 3.0)]


@pytest.fixture
def linear():
    """A linear network in float64, inputs whose balls lie in [0, 1], and two directions."""
    g = torch.Generator().manual_seed(0)
    model = nn.Linear(6, 3, dtype=torch.float64)
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=g)
    x = 0.2 + 0.6 * torch.rand(7, 6, dtype=torch.float64, generator=g)
    directions = [
        {name: torch.randn(p.shape, dtype=p.dtype, generator=g) for name, p in model.named_parameters()}
        for _ in range(2)
    ]
    return model, x, torch.arange(7) % 3, directions


def label_logit(logits, y):
    """Minus the logit of the label: its maximum over a ball is an l1 norm."""
    return -logits.gather(1, y[:, None])[:, 0]


def moved(model, directions, a, b):
    parts = zip(model.parameters(), *(direction.values() for direction in directions), strict=True)
    return [p.detach() + a * first + b * second for p, first, second in parts]


@pytest.mark.parametrize("adversarial", ["anew", "fixed"])
def test_both_losses_on_a_plane_are_those_of_the_closed_form(linear, adversarial):
    """Adversarial examples of a linear loss are x - epsilon sign(row of the label), at each point or at w."""
    model, x, y, directions = linear
    options = {"attack": ATTACK, "adversarial": adversarial, "loss": label_logit}
    values = loss_plane(model, x, y, directions=directions, points=POINTS, **options)
    for (a, b), ce, rloss in zip(POINTS, values["ce"], values["rloss"], strict=True):
        weight, bias = moved(model, directions, a, b)
        attacked = weight if adversarial == "anew" else model.weight.detach()
        x_adv = x - ATTACK.epsilon * attacked[y].sign()
        for value, inputs in ((ce, x), (rloss, x_adv)):
            expected = -((weight[y] * inputs).sum(1) + bias[y]).mean()
            assert value == pytest.approx(expected.item(), rel=1e-12)


def test_directions_are_the_principal_components(linear):
    """Of w and five snapshots, four in general position and one equal to w, as numpy finds them."""
    model, *_ = linear
    weights = {name: p.detach() for name, p in model.named_parameters()}
    g = torch.Generator().manual_seed(3)
    snapshots = [
        {n: w + torch.randn(w.shape, dtype=w.dtype, generator=g) for n, w in weights.items()}
        for _ in range(4)
    ]
    found = principal_plane(weights, [*snapshots, weights])
    assert found.coordinates[4].tolist() == [0, 0]
    w = np.concatenate([t.flatten() for t in weights.values()])
    rows = np.stack([np.concatenate([t.flatten() for t in s.values()]) - w for s in [*snapshots, weights]])
    _, values, vectors = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    for k, direction in enumerate(found.directions):
        flat = np.concatenate([t.flatten() for t in direction.values()])
        assert abs(flat @ vectors[k]) == pytest.approx(1, rel=1e-10)
        assert found.coordinates[:4, k].numpy() == pytest.approx(rows[:4] @ flat, rel=1e-9)
    assert found.explained.numpy() == pytest.approx(values[:2] ** 2 / (values**2).sum())


def test_snapshots_on_a_line_are_refused(linear):
    model, *_, directions = linear
    weights = {name: p.detach() for name, p in model.named_parameters()}
    line = [dict(zip(weights, moved(model, directions, a, 0.0), strict=True)) for a in (0.0, 1.0, 3.0)]
    for snapshots in (line, line[:1], []):
        with pytest.raises(ValueError, match="do not lie on a line"):
            principal_plane(weights, snapshots)
    with pytest.raises(ValueError, match="'steps' is integer"):
        principal_plane(weights | {"steps": torch.tensor(3)}, line)


def test_directions_that_do_not_fit_are_refused(linear):
    model, x, y, (first, second) = linear
    for directions, how, words in (
        ((first, {"weight": second["weight"]}), "anew", r"shape \(3,\) at 'bias'"),
        ((first, second | {"weight": second["weight"][:1]}), "anew", r"shape \(3, 6\) at 'weight'"),
        ((first, second), "Anew", "'Anew' given"),
    ):
        with pytest.raises(ValueError, match=words):
            loss_plane(model, x, y, directions=directions, points=POINTS, attack=ATTACK, adversarial=how)


def perturbed(model, seed):
    """A copy with other weights."""
    other, g = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    for p in other.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=g)
    return other


@pytest.fixture
def measured(trained, held_out):
    """`measured(directions)`: records of a 3 x 3 grid, by metric."""
    x, y = held_out
    arrays = {"x_test": (255 * x).round().to(torch.uint8).numpy(), "y_test": y.numpy()}
    snapshots = {epoch: partial(perturbed, trained, epoch) for epoch in (3, 7)}
    data = Examples(Dataset(arrays), snapshots=snapshots)

    def call(directions):
        attack = {"epsilon": 0.1, "step_size": 0.05, "steps": 4}
        settings = PlaneSettings(directions=directions, points=3, examples=40, attack=attack)
        records = [*plane(Network(trained, x[:2]), data, settings)]
        return {name: [r for r in records if r.metric == name] for name in METRICS}

    return call, data.examples("test", 40)


def test_the_centre_of_random_directions_is_the_loss_at_the_weights(trained, measured):
    call, (x, y) = measured
    records = call("random")
    centre = {r.loss: r.value for r in records["plane"] if r.coordinate == "0.0,0.0"}
    assert len(records["plane"]) == 2 * 3**2
    assert centre["ce"] == pytest.approx(F.cross_entropy(trained(x), y).item(), rel=1e-5)
    starts = generator(derive_seed(0, "plane"), "starts")
    rloss = ATTACK(trained, x, y, generator=starts).loss.mean().item()
    assert centre["rloss"] == pytest.approx(rloss, rel=1e-5)
    assert not records["path"]


def test_the_grid_covers_the_path_of_the_snapshots(measured):
    records = measured[0]("snapshots")
    assert [r.value for r in records["path"]] == [3, 7]
    places = ([r.coordinate.split(",") for r in records[name]] for name in ("plane", "path"))
    grid, path = (np.array(texts, float) for texts in places)
    assert (grid.min(0) < path.min(0)).all()
    assert (path.max(0) < grid.max(0)).all()
    assert sum(r.value for r in records["explained"]) == pytest.approx(1)  # of three checkpoints
