import pytest
import torch
from torch import nn

from robust_flatness.architectures import build_model
from robust_flatness.attacks import PGD
from robust_flatness.config import DataSpec, ModelSpec
from robust_flatness.data import Dataset, make_splits
from robust_flatness.errors import ConfigError
from robust_flatness.flatness import average_flatness, worst_flatness
from robust_flatness.measures.base import Examples
from robust_flatness.measures.flatness import FlatnessSettings, flatness
from robust_flatness.measures.layers import LayersSettings, layers
from robust_flatness.measures.series import SeriesSettings, series
from robust_flatness.network import Network
from robust_flatness.seeding import derive_seed, generator

XI = 0.4
ATTACK = {"epsilon": 0.1, "step_size": 0.05, "steps": 2}


def test_an_unknown_layer_is_an_error():
    """One layer, and all by name, are compared with the plain implementation in tests/reference."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    x, y = torch.rand(10, 1, 4, 4), torch.arange(10) % 3
    with pytest.raises(ConfigError, match=r"1\.weight"):
        average_flatness(model, x, y, attack=None, layers=["1.weight"])


def test_the_measure_of_a_network_with_one_layer_is_its_flatness():
    torch.manual_seed(0)
    net = Network(nn.Sequential(nn.Flatten(), nn.Linear(16, 3, bias=False)))
    images = torch.randint(0, 256, (8, 1, 4, 4), dtype=torch.uint8).numpy()
    dataset = Dataset({"x_test": images, "y_test": (torch.arange(8) % 3).numpy(), "classes": 3})
    parts = {
        "attack": ATTACK | {"restarts": 2}, "test_examples": 8,
        "average": {"xi": [XI], "samples": 3, "clean_samples": 1}, "worst": {"xi": [0.01], "restarts": 2},
    }  # fmt: skip
    records = list(layers(net, Examples(dataset), LayersSettings(**parts)))
    assert records[0][:2] == ("numbers", 48)
    assert {record.coordinate for record in records} == {"1.weight"}
    whole = flatness(net, Examples(dataset), FlatnessSettings(**parts, train_examples=0))
    whole = {record.metric: record for record in whole if record.loss == "rloss"}
    assert [record.metric for record in records[1:]] == ["avg_flatness", "avg_flatness_std", "worst_flatness"]
    assert all(record._replace(coordinate="") == whole[record.metric] for record in records[1:])


@pytest.mark.parametrize("restarts", [1, 2])
def test_records_of_a_series_are_those_of_the_measures(restarts):
    dataset = Dataset(make_splits(DataSpec(name="digits", train=20, early_stopping=20, test=30), 0))
    spec = ModelSpec(name="small-resnet", width=2)
    net = Network(build_model(spec, 10, dataset.mean, dataset.std, generator(0, "test")))
    average = {"xi": [0.5], "samples": 2, "scope": "batch", "batch_size": 8}
    worst = {"xi": [0.003, 0.001], "steps": 2, "restarts": 1}
    given = {"attack": ATTACK | {"restarts": restarts}, "average": average, "worst": worst}
    settings = SeriesSettings(**given, test_examples=30, train_examples=20)
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
    seed = derive_seed(3, "flatness", "average")
    average = average_flatness(net, x, y, **average | {"xi": 0.5}, seed=seed, **common)
    assert values["avg_flatness", "test", 0.5] == pytest.approx(average.value, abs=1e-5)
    seed = derive_seed(3, "flatness", "worst")
    for xi in (0.003, 0.001):
        worst = worst_flatness(net, x, y, xi=xi, steps=2, restarts=1, seed=seed, **common)
        assert values["worst_flatness", "test", xi] == pytest.approx(worst.value, abs=1e-5)
    alone = attack(net, x, y, None, generator(derive_seed(3, "robustness", "test"), "pgd"))
    assert values["rloss_pgd", "test", None] == pytest.approx(alone.loss.mean().item(), abs=1e-5)
