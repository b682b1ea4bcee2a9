"""Networks of others in an experiment: understood, refused, kept as checkpoints, counted only where asked."""

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from robust_flatness.checkpoints import import_network, load_checkpoint
from robust_flatness.config import load_yaml, parse
from robust_flatness.config.networks import NetworkSpec
from robust_flatness.data import Dataset
from robust_flatness.errors import ConfigError
from robust_flatness.experiment import load_experiment
from robust_flatness.measures.scaling import scale_checkpoint
from robust_flatness.run import export as robustbench
from robust_flatness.run.planning import plan
from robust_flatness.tables.collect import CollectSpec
from robust_flatness.workflow import collect_spec

ROOT = Path(__file__).parents[1]
SMOKE = load_yaml(ROOT / "config/smoke.yaml")
CLASSES = 4


def load(models, **changed):
    return load_experiment(SMOKE | {"models": models} | changed)


NETS = """
from torch import nn

def plain(classes=4):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, classes))

def normed():
    norm = nn.BatchNorm2d(4)
    return nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(192, 192), nn.Linear(192, 192)
        self.b.weight = self.a.weight
        self.last = nn.Linear(192, 4)

    def forward(self, x):
        return self.last(self.b(self.a(x.flatten(1)).relu()))
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """A folder with a module of networks, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "nets_of_others.py").write_text(NETS)
    yield tmp_path
    sys.modules.pop("nets_of_others", None)


@pytest.fixture
def dataset():
    rng = np.random.default_rng(0)
    arrays = {f"x_{split}": rng.integers(0, 256, (6, 3, 8, 8), dtype=np.uint8) for split in ("train", "test")}
    arrays |= {f"y_{split}": np.arange(6) % CLASSES for split in ("train", "test")}
    return Dataset(arrays | {"classes": np.int64(CLASSES)})


GOOD = {"model": "torchvision:resnet18"}
BAD_MODELS = [
    {"at": GOOD}, {"a b": GOOD}, {"a": {"model": "nets"}}, {"a": {}},
    {"a": {"model": "robustbench:cifar11/Linf/X"}}, {"a": GOOD | {"weigths": "x"}},
    {"a": GOOD | {"mean": [0.5], "std": [0]}},
]  # fmt: skip


@pytest.mark.parametrize("models", BAD_MODELS, ids=str)
def test_networks_that_cannot_be_measured_are_refused_before_anything_runs(models):
    with pytest.raises(ConfigError, match=f"models.'?{next(iter(models))}"):
        load(models)


def test_an_experiment_needs_a_variant_or_a_network():
    measures = {name: SMOKE["measures"][name] for name in ("robustness", "flatness")}
    alone = {"variants": [], "overrides": {}, "measures": measures}
    with pytest.raises(ConfigError, match="variants: name at least one, or external networks under models"):
        load({}, **alone)
    experiment = load({"mine": GOOD}, **alone)
    assert [*experiment.variants] == ["mine"]
    assert experiment.train_jobs == {}
    spec = CollectSpec.model_validate_json(collect_spec(experiment, Path("nowhere")).json_text())
    assert spec.variants["mine"].external
    assert [*plan(experiment).steps] == ["measure"]


def test_a_network_is_measured_with_the_first_seed_by_measures_of_all_variants_or_that_name_it():
    measures = SMOKE["measures"] | {"hessian": {"variants": ["at", "mine"]}}
    models = {"mine": GOOD, "other": GOOD}
    experiment = load(models, seeds=[3, 4], measures=measures)
    assert experiment.seeds_of("mine") == (3,)
    assert [*experiment.measures_of("mine")] == ["robustness", "flatness", "hessian"]
    assert [*experiment.measures_of("other")] == ["robustness", "flatness"]
    with pytest.raises(ConfigError, match="snapshots are kept of trained variants"):
        load(models, measures=SMOKE["measures"] | {"series": {"variants": ["at", "mine"]}})


def imported(spec, dataset, path):
    import_network(parse(NetworkSpec, spec), dataset, path, "mine", 0)
    return load_checkpoint(path)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("name", ["plain", "Tied"])
def test_a_checkpoint_of_ones_own_network_is_its_function(nets, dataset, name, normalised):
    import nets_of_others

    torch.manual_seed(0)
    source = getattr(nets_of_others, name)().eval()
    torch.save({"state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}}, "w.pth")
    spec = {"model": f"nets_of_others:{name}", "weights": "w.pth"}
    spec |= {"mean": [0.5, 0.4, 0.3], "std": "0.2,0.3,0.4"} if normalised else {}
    found = imported(spec, dataset, nets / "last.safetensors")
    x = dataset.images("test")
    shift, scale = (torch.tensor(v).view(-1, 1, 1) for v in ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]))
    assert torch.equal(found.model(x), source((x - shift) / scale if normalised else x))
    assert found.initial() is None
    assert found.metadata.weight_bound is None
    assert found.metadata.epoch is None


@pytest.mark.parametrize("normalised", [{}, {"mean": [0.5, 0.4, 0.3], "std": "0.2,0.3,0.4"}])
def test_checkpoints_of_others_are_exported_and_scaled_as_those_of_the_kit(nets, dataset, normalised):
    """Scaled convolutions: the same function, read back with its normalisation."""
    source = nets / "checkpoints/last.safetensors"
    found = imported({"model": "nets_of_others:normed"} | normalised, dataset, source)
    scale_checkpoint(source, nets / "scaled.safetensors", 2.0, "mine-2")
    x = dataset.images("test")
    assert torch.allclose(load_checkpoint(nets / "scaled.safetensors").model(x), found.model(x), atol=1e-4)
    weights, info = robustbench.export_checkpoint(source, nets, "fashion")
    found.model.load_state_dict(torch.load(weights, weights_only=True))
    assert json.loads(info.read_text())["architecture"] == "nets_of_others:normed"


def test_robustbenchs_weights_are_fetched_once_and_kept(nets, dataset, monkeypatch):
    """A stand-in for the package: the zoo's function is called for the weights, its architectures later."""
    fetched = []

    def network():
        torch.manual_seed(len(fetched))
        return nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES))

    def load_model(model_name, dataset, threat_model):
        fetched.append((model_name, dataset, threat_model))
        return network()

    enums = types.SimpleNamespace(BenchmarkDataset=str, ThreatModel=str)
    dicts = types.SimpleNamespace(model_dicts={"cifar10": {"Linf": {"Wong2020Fast": {"model": network}}}})
    utils = types.SimpleNamespace(load_model=load_model)
    stand_in = {"": types.ModuleType("robustbench"), ".model_zoo": types.ModuleType("model_zoo"),
                ".model_zoo.enums": enums, ".model_zoo.models": dicts, ".utils": utils}  # fmt: skip
    for name, module in stand_in.items():
        monkeypatch.setitem(sys.modules, f"robustbench{name}", module)
    monkeypatch.setitem(sys.modules, "autoattack", types.ModuleType("autoattack"))
    path = nets / "last.safetensors"
    found = imported({"model": "robustbench:Wong2020Fast"}, dataset, path)
    assert fetched == [("Wong2020Fast", "cifar10", "Linf")]
    torch.manual_seed(1)
    expected = nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES))
    x = dataset.images("test")
    assert torch.equal(found.model(x), expected(x))
    assert torch.equal(load_checkpoint(path).model(x), expected(x))
    assert len(fetched) == 1
