"""Networks of others in an experiment: understood, refused, kept as checkpoints, counted only where asked."""

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models as zoo

from robust_flatness.analysis.evidence import Evidence
from robust_flatness.architectures import build_model
from robust_flatness.checkpoints import Metadata, import_network, load_checkpoint, save_checkpoint
from robust_flatness.config import ModelSpec, load_yaml, parse
from robust_flatness.config.networks import NetworkSpec, require_files
from robust_flatness.data import Dataset
from robust_flatness.errors import ConfigError
from robust_flatness.experiment import load_experiment
from robust_flatness.loading import import_robustbench
from robust_flatness.measures.scaling import scale_checkpoint
from robust_flatness.plotting.notebook import Layer
from robust_flatness.run import export as robustbench
from robust_flatness.run.planning import plan
from robust_flatness.tables import aggregate, frames, printed
from robust_flatness.tables.collect import CollectSpec
from robust_flatness.workflow import collect_spec

ROOT = Path(__file__).parents[1]
SMOKE = load_yaml(ROOT / "config/smoke.yaml")
CLASSES = 4


def load(models, **changed):
    return load_experiment(SMOKE | {"models": models} | changed, ROOT / "config/variants.yaml")


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """A folder with a module of networks, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "nets_of_others.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "def plain(classes=4):\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, classes))\n"
        "def ten():\n    return plain(10)\n"
        "def normed():\n"
        "    norm = nn.BatchNorm2d(4)\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))\n"
        "class Tied(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a, self.b = nn.Linear(192, 192), nn.Linear(192, 192)\n"
        "        self.b.weight = self.a.weight\n"
        "        self.last = nn.Linear(192, 4)\n"
        "    def forward(self, x):\n"
        "        return self.last(self.b(self.a(x.flatten(1)).relu()))\n"
    )
    yield tmp_path
    sys.modules.pop("nets_of_others", None)


@pytest.fixture
def dataset():
    rng = np.random.default_rng(0)
    arrays = {f"x_{split}": rng.integers(0, 256, (6, 3, 8, 8), dtype=np.uint8) for split in ("train", "test")}
    arrays |= {f"y_{split}": np.arange(6) % CLASSES for split in ("train", "test")}
    return Dataset(arrays | {"classes": np.int64(CLASSES)})


# The config.


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ({"at": {"model": "nets:net"}}, "models.at: there is a variant of this name"),
        ({"a b": {"model": "nets:net"}}, "models.a b: use at most 100 letters"),
        ({"a": {"model": "nets"}}, "models.a.model: write package.module:function"),
        ({"a": {"model": "nets:a b"}}, "models.a.model: write package.module:function"),
        ({"a": {"model": "robustbench:cifar11/Linf/X"}}, "models.a.model: write package.module:function"),
        ({"a": {}}, "models.a.model: Field required"),
        ({"a": {"model": "nets:net", "weigths": "x"}}, "did you mean 'weights'"),
        ({"a": {"model": "nets:net", "mean": [0.5]}}, "models.a: mean, std: give both"),
        ({"a": {"model": "nets:net", "mean": [0.5], "std": [0]}}, "models.a.std"),
        ({"a": {"model": "torchvision:resnet18"}}, "has 1000 classes, the data have 10"),
        ({"a": {"model": "robustbench:cifar100/Linf/X"}}, "has 100 classes, the data have 10"),
    ],
)
def test_networks_that_cannot_be_measured_are_refused_before_anything_runs(models, words):
    with pytest.raises(ConfigError) as error:
        load(models)
    assert words in str(error.value)


def test_missing_weights_are_named_before_anything_runs(tmp_path):
    (tmp_path / "there.pt").touch()
    given = {
        name: {"model": "nets:net", "weights": str(tmp_path / f"{name}.pt")} for name in ("there", "gone")
    }
    with pytest.raises(ConfigError, match=r"^models\.gone\.weights: .*gone\.pt: no such file$"):
        require_files(load(given).networks)


def test_an_experiment_needs_a_variant_or_a_network():
    measures = {name: SMOKE["measures"][name] for name in ("robustness", "flatness")}
    alone = {"variants": [], "overrides": {}, "measures": measures}
    with pytest.raises(ConfigError, match="variants: name at least one, or external networks under models"):
        load({}, **alone)
    experiment = load({"mine": {"model": "nets:net"}}, **alone)
    assert [*experiment.variants] == ["mine"]
    assert experiment.train_jobs == {}
    spec = CollectSpec.model_validate_json(collect_spec(experiment, Path("nowhere")).json_text())
    assert spec.variants["mine"].external
    assert [*plan(experiment).steps] == ["measure"]


def test_a_network_is_measured_with_the_first_seed_by_measures_of_all_variants_or_that_name_it():
    measures = SMOKE["measures"] | {"hessian": {"variants": ["at", "mine"]}}
    models = {"mine": {"model": "nets:net"}, "other": {"model": "nets:net"}}
    experiment = load(models, seeds=[3, 4], measures=measures)
    assert experiment.seeds_of("mine") == (3,)
    assert experiment.measures_of("mine") == ["robustness", "flatness", "hessian"]
    assert experiment.measures_of("other") == ["robustness", "flatness"]
    with pytest.raises(ConfigError, match="only trained variants have snapshots"):
        load(models, measures=SMOKE["measures"] | {"series": {"variants": ["at", "mine"]}})


def test_the_talks_robustbench_models():
    experiment = load_experiment(load_yaml(ROOT / "config/robustbench.yaml"), ROOT / "config/variants.yaml")
    assert {*experiment.networks} == {*printed.read_printed("robustbench")["robustbench_model"]}
    for name, variant in experiment.networks.items():
        assert variant.network.model == f"robustbench:{name}"
        assert variant.family == "robustbench"
        assert experiment.measures_of(name) == ["robustness", "flatness"]
    paper = load_experiment(load_yaml(ROOT / "config/cifar10.yaml"), ROOT / "config/variants.yaml")
    assert experiment.measures["robustness"] == paper.measures["robustness"]


# Checkpoints.


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
    assert found.weight_bound is None
    assert found.metadata.epoch is None


@pytest.mark.parametrize("normalised", [{}, {"mean": [0.5, 0.4, 0.3], "std": "0.2,0.3,0.4"}])
def test_checkpoints_of_others_are_exported_and_scaled_as_those_of_the_kit(nets, dataset, normalised):
    """Scaled convolutions: the same function, read back with its normalisation."""
    source = nets / "checkpoints/last.safetensors"
    found = imported({"model": "nets_of_others:normed"} | normalised, dataset, source)
    scale_checkpoint(source, nets / "scaled.safetensors", 2.0, "mine-2")
    x = dataset.images("test")
    assert torch.allclose(load_checkpoint(nets / "scaled.safetensors").model(x), found.model(x), atol=1e-4)
    weights, info = robustbench.export_checkpoint(source, nets)
    found.model.load_state_dict(torch.load(weights, weights_only=True))
    assert json.loads(info.read_text())["architecture"] == "nets_of_others:normed"


def test_networks_of_others_are_not_replayed_as_recorded(nets, dataset):
    """A recording on a GPU would freeze what their code decides at each call."""
    found = imported({"model": "nets_of_others:plain"}, dataset, nets / "last.safetensors")
    assert found.network.graphs is None
    spec = ModelSpec(name="small-resnet", width=4)
    metadata = Metadata(spec.model_dump(), CLASSES, (0.5,) * 3, (0.3,) * 3, "at", 0, 1)
    save_checkpoint(nets / "own.safetensors", build_model(spec, CLASSES, (0.5,) * 3, (0.3,) * 3), metadata)
    assert load_checkpoint(nets / "own.safetensors").network.graphs is not None


def test_a_checkpoint_of_torchvision(nets, dataset):
    source = zoo.get_model("resnet18", weights=None, num_classes=CLASSES).eval()
    torch.save(source.state_dict(), "resnet.pt")
    found = imported(
        {"model": "torchvision:resnet18", "weights": "resnet.pt"}, dataset, nets / "r.safetensors"
    )
    x = dataset.images("test")
    assert torch.equal(found.model(x), source(x))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ten", "has 10 classes .* the data have 4"),
        ("nothing", "cannot be imported"),
        ("nn.Flatten", "write package.module:function"),
    ],
)
def test_networks_that_do_not_fit_are_refused_by_name(nets, dataset, name, words):
    with pytest.raises(ConfigError, match=words):
        imported({"model": f"nets_of_others:{name}"}, dataset, nets / "last.safetensors")
    assert not (nets / "last.safetensors").exists()


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
    stand_in = {"robustbench": types.ModuleType("robustbench"), "robustbench.model_zoo.enums": enums}
    stand_in |= {
        "robustbench.model_zoo": types.ModuleType("model_zoo"),
        "robustbench.model_zoo.models": dicts,
    }
    stand_in |= {"robustbench.utils": types.SimpleNamespace(load_model=load_model)}
    for name, module in stand_in.items():
        monkeypatch.setitem(sys.modules, name, module)
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
    with pytest.raises(ConfigError, match=r"models\.mine: model: RobustBench has no model 'Wong2021'"):
        imported({"model": "robustbench:Wong2021"}, dataset, path)
    assert import_robustbench() is stand_in["robustbench"]


# Tables and figures.


def tables(**flags):
    """Ten variants and a network of others far from them."""
    rows = [
        {
            "variant": f"v{i}",
            "family": "mine",
            "label": f"v{i}",
            "avg_flatness_rloss": i / 10,
            "test_rloss_pgd": i,
        }
        for i in range(10)
    ]
    rows = [row | {"derived": 0} for row in rows]
    rows.append(
        {"variant": "other", "family": "external", "label": "Other", "external": 1, "derived": 1}
        | {"avg_flatness_rloss": 50.0, "test_rloss_pgd": 0.0, "train_rloss_pgd": 0.25}
        | flags
    )
    models = frames.identified(Path("models.csv"), frames.pd.DataFrame(rows))
    return frames.Tables(
        models, *(frames.pd.DataFrame({name: [] for name in ("variant", "seed", "epoch")}) for _ in range(3))
    )


def test_networks_of_others_count_where_asked_alone():
    apart, counted = tables(), tables(derived=0)
    assert [*Evidence.of(apart).models["variant"]] == [f"v{i}" for i in range(10)]
    assert "other" in [*Evidence.of(counted).models["variant"]]
    layer = Layer("mine", apart)
    assert [*layer.others["variant"]] == ["other"]
    assert layer.others["rloss_gap"].item() == -0.25
    assert [*layer.models["variant"]] == [*layer.variants["variant"], "other"]
    assert Layer("mine", counted).others.empty
    assert not aggregate.scaled(apart.models).any()


def test_the_printed_robustbench_models_are_networks_of_others():
    layer = Layer("paper", printed.read_published())
    assert {*layer.others["family"]} == {"robustbench"}
    assert len(layer.others) == 8
    assert len(layer.counted) == 74
