"""RobustBench's own evaluation of an exported checkpoint gives our numbers."""

import json

import pytest
import torch
from torch.nn import functional as F
from typer.testing import CliRunner

from robust_flatness.architectures import build_model
from robust_flatness.attacks.autoattack import run_autoattack
from robust_flatness.checkpoints import Metadata, load_checkpoint, save_checkpoint
from robust_flatness.cli import app
from robust_flatness.config import ModelSpec
from robust_flatness.errors import FileError
from robust_flatness.loading import import_robustbench
from robust_flatness.run.export import FIELDS, export_checkpoint
from robust_flatness.seeding import generator
from robust_flatness.tables.records import write_network

EXAMPLES, EPSILON = 24, 0.01
SPEC = ModelSpec(name="small-resnet", width=8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small network that has learnt some images: the path of its checkpoint, images, labels."""
    model = build_model(SPEC, 10, (0.5,) * 3, (0.3,) * 3, generator(0, "robustbench"))
    x = torch.rand(EXAMPLES, 3, 16, 16, generator=generator(0, "images"))
    y = torch.arange(EXAMPLES) % 10
    optimizer = torch.optim.Adam(model.parameters(), 0.003)
    for _ in range(40):
        optimizer.zero_grad()
        F.cross_entropy(model.train()(x), y).backward()
        optimizer.step()
    metadata = Metadata(SPEC.model_dump(), 10, (0.5,) * 3, (0.3,) * 3, "at", 0, 39)
    path = tmp_path_factory.mktemp("run") / "checkpoints" / "last.safetensors"
    save_checkpoint(path, model.eval(), metadata)
    return path, x, y


def robustness(path, sha256, version="standard", **attack):
    """Records beside the checkpoint."""
    settings = {"attack": {"epsilon": 8 / 255} | attack, "autoattack": {"version": version}}
    described = {"sha256": sha256, "notes": {"autoattack": "AutoAttack (x)"}}
    common = {"measure": "robustness", "checkpoint": "last", "split": "test", "n": 1000}
    rows = [common | {"metric": "err", "value": 17.5}, common | {"metric": "rerr_aa", "value": 55.25}]
    header = {"checkpoints": {"last": described}, "settings": {"robustness": settings}}
    write_network(path.parents[1] / "records.csv", header, rows)


def test_an_export_is_the_checkpoint_and_what_was_measured(trained, tmp_path):
    path, x, _ = trained
    robustness(path, load_checkpoint(path).metadata.sha256)
    options = ["--directory", str(tmp_path), "--dataset", "cifar10"]
    done = CliRunner().invoke(app, ["export", str(path), *options])
    assert done.exit_code == 0, done.output
    weights, info = (tmp_path / line for line in done.output.split())
    assert weights == tmp_path / "models/cifar10/Linf/at_seed-0_last.pt"
    fresh = build_model(SPEC, 10, (0.1,) * 3, (0.2,) * 3, generator(9, "x"))
    fresh.load_state_dict(torch.load(weights, weights_only=True))
    assert torch.equal(fresh.eval()(x), load_checkpoint(path).model(x))
    entry = json.loads(info.read_text())
    assert tuple(entry) == FIELDS
    assert entry["clean_acc"] == "82.50"
    assert entry["autoattack_acc"] == "44.75"
    assert entry["eps"] == 8 / 255


def test_the_folder_is_named_after_the_threat_model(trained, tmp_path):
    path, _, _ = trained
    robustness(path, load_checkpoint(path).metadata.sha256, norm="l2", epsilon=0.5)
    weights, info = export_checkpoint(path, tmp_path, "cifar10")
    assert weights == tmp_path / "models/cifar10/L2/at_seed-0_last.pt"
    assert info == tmp_path / "model_info/cifar10/L2/at_seed-0_last.json"
    assert json.loads(info.read_text())["eps"] == 0.5


def test_of_an_unmeasured_network_the_threat_model_is_that_of_its_training(tmp_path):
    path = tmp_path / "run/checkpoints/last.safetensors"
    model = build_model(ModelSpec(name="small-resnet", width=2), 10, (0.5,), (0.3,))
    known = Metadata({"name": "small-resnet", "width": 2}, 10, (0.5,), (0.3,), "at", 0, 3, norm="l2")
    save_checkpoint(path, model, known)
    weights, _ = export_checkpoint(path, tmp_path, "digits")
    assert weights == tmp_path / "models/digits/L2/at_seed-0_last.pt"


def test_a_reduced_autoattack_or_another_checkpoint_is_not_passed_off(trained, tmp_path):
    path, _, _ = trained
    robustness(path, load_checkpoint(path).metadata.sha256, version="reduced")
    entry = json.loads(export_checkpoint(path, tmp_path, "cifar10")[1].read_text())
    assert entry["autoattack_acc"] is None
    assert "44.75 % under AutoAttack (x)" in entry["footnote"]
    robustness(path, "0" * 64)
    with pytest.raises(FileError, match="another checkpoint"):
        export_checkpoint(path, tmp_path, "cifar10")


def test_robustbench_measures_what_we_measure(trained, tmp_path, monkeypatch):
    """`robustbench.eval.benchmark` with the standard AutoAttack; its data loader is replaced."""
    try:
        import_robustbench()
    except ImportError as error:
        pytest.skip(f"needs the extra `robustbench` ({error})")
    from robustbench import eval as evaluation

    path, x, y = trained
    model = load_checkpoint(path).model
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluation, "load_clean_dataset", lambda *_: (x, y))
    clean, robust = evaluation.benchmark(model, EXAMPLES, eps=EPSILON, batch_size=EXAMPLES)
    with torch.no_grad():
        assert clean == (model(x).argmax(1) == y).double().mean().item()
    ours = 1 - run_autoattack(model, x, y, EPSILON).error.double().mean().item()
    assert 0 < ours < clean
    assert abs(robust - ours) * EXAMPLES < 1.5  # random starts: an example at most
