"""The records of a snapshot: those of the measures of a checkpoint, with RLoss(w) found once."""

import pytest

from robust_flatness.architectures import build_model
from robust_flatness.attacks import PGD
from robust_flatness.config import DataSpec, ModelSpec
from robust_flatness.data import Dataset, make_splits
from robust_flatness.flatness import average_flatness, worst_flatness
from robust_flatness.measures.examples import Examples
from robust_flatness.measures.series import SeriesSettings, series
from robust_flatness.network import Network
from robust_flatness.seeding import derive_seed, generator

ATTACK = {"epsilon": 0.1, "step_size": 0.05, "steps": 2}


@pytest.fixture(scope="module")
def snapshot():
    """A network with random weights, and data."""
    dataset = Dataset(make_splits(DataSpec(name="digits", train=20, early_stopping=20, test=30), 0))
    model = build_model(
        ModelSpec(name="small-resnet", width=2), 10, dataset.mean, dataset.std, generator(0, "test")
    )
    return Network(model), dataset


@pytest.mark.parametrize("restarts", [1, 2])
def test_the_records_are_those_of_the_measures(snapshot, restarts):
    net, dataset = snapshot
    settings = SeriesSettings(
        attack=ATTACK | {"restarts": restarts},
        average={"xi": [0.5], "samples": 2, "scope": "batch", "batch_size": 8},
        worst={"xi": [0.003, 0.001], "steps": 2, "restarts": 1},
        test_examples=30,
        train_examples=20,
    )
    data = Examples(dataset, seed=3, checkpoint="epoch-000")
    values = {(r.metric, r.split, r.xi): r.value for r in series(net, data, settings)}
    for split, count in (("test", 30), ("train", 20)):
        losses, errors = data.example_values[split]["rloss"], data.example_values[split]["rerr_pgd"]
        assert len(losses) == len(errors) == count
        assert sum(losses) / count == pytest.approx(values["rloss_pgd", split, None], rel=1e-5)
    errors = data.example_values["test"]["rerr_pgd"]
    assert 100 * sum(errors) / 30 == pytest.approx(values["rerr_pgd", "test", None])
    x, y, attack = dataset.images("test"), dataset.labels("test"), PGD(**ATTACK, restarts=restarts)
    common = {"attack": attack, "reference": values["rloss_pgd", "test", None]}
    average = average_flatness(
        net, x, y, xi=0.5, samples=2, scope="batch", batch_size=8,
        seed=derive_seed(3, "flatness", "average"), **common,
    )  # fmt: skip
    assert values["avg_flatness", "test", 0.5] == pytest.approx(average.value, abs=1e-5)
    for xi in (0.003, 0.001):
        seed = derive_seed(3, "flatness", "worst")
        worst = worst_flatness(net, x, y, xi=xi, steps=2, restarts=1, seed=seed, **common)
        assert values["worst_flatness", "test", xi] == pytest.approx(worst.value, abs=1e-5)
    alone = attack(net, x, y, None, generator(derive_seed(3, "robustness", "test"), "pgd"))
    assert values["rloss_pgd", "test", None] == pytest.approx(alone.loss.mean().item(), abs=1e-5)


def test_the_robust_loss_of_each_split_is_found_once(snapshot, monkeypatch):
    net, dataset = snapshot
    calls, attack = [], PGD.__call__

    def counted(self, model, x, *arguments):
        calls.append(len(x))
        return attack(self, model, x, *arguments)

    monkeypatch.setattr(PGD, "__call__", counted)
    settings = SeriesSettings(
        attack=ATTACK, average={"xi": [0.5], "samples": 1}, worst={"xi": [0.003], "steps": 1, "restarts": 1},
        test_examples=30, train_examples=20,
    )  # fmt: skip
    assert list(series(net, Examples(dataset, checkpoint="epoch-000"), settings))
    assert sorted(calls) == [20, 30]
