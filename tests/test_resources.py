from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from robust_flatness.architectures import build_model
from robust_flatness.config import AutoAttackSpec, ModelSpec, load_yaml
from robust_flatness.config.catalogue import COSTS
from robust_flatness.data import make_splits
from robust_flatness.errors import ConfigError
from robust_flatness.experiment import load_experiment
from robust_flatness.experiment.new import new_experiment
from robust_flatness.run.planning import OVERHEAD_MINUTES, START, minutes, plan, seconds, training_passes

ROOT = Path(__file__).parents[1]


def experiment(name, **changes):
    return load_experiment(load_yaml(ROOT / f"config/{name}.yaml") | changes)


DIGITS = experiment("digits", variants="all")
SMALL, LARGE = ModelSpec(name="small-resnet", width=16), ModelSpec(name="resnet18", width=64)


@pytest.mark.parametrize("name", COSTS)
def test_networks_state_what_they_cost(name):
    """Multiply-adds of all convolutions and linear layers, and weights, counted."""
    stated, counted = COSTS[name], 0
    side, channels = stated["side"], 1 if stated["side"] == 8 else 3

    def count(layer, inputs, output):
        nonlocal counted
        counted += layer.weight.numel() * output[0, 0].numel() if output.ndim == 4 else layer.weight.numel()

    with torch.device("meta"):
        spec = ModelSpec(name=name, width=stated["width"])
        model = build_model(spec, 10, (0.5,) * channels, (0.2,) * channels)
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.register_forward_hook(count)
        model.eval()(torch.zeros(1, channels, side, side))
    assert stated["multiply_adds"] == counted
    assert stated["parameters"] == sum(p.numel() for p in model.parameters())


def test_a_measured_training_takes_about_as_long_as_estimated():
    """30 epochs of PGD-7 on 1,000 images of 16x16 through width 16: 336 s on one core, a quarter of it to
    evaluate 15 snapshots; 150 epochs of ResNet-18 on an H100 in bfloat16 at 6.5 s each."""
    narrow = ModelSpec(name="resnet18", width=16)
    assert 200 < seconds(30 * 1000 * 8, narrow, 16, "cpu") < 336
    assert seconds(50_000 * 8, LARGE, 32, "cuda", "bfloat16", True) == pytest.approx(6.5, rel=0.1)


def test_the_passes_of_a_training_are_those_of_all_its_batches():
    """Entropy-SGD takes L + 1 batches an update, in 150 / L epochs; AT-AWP's perturbation takes a pass."""
    jobs = experiment("cifar10").train_jobs
    epoch = 50_000 * (7 + 1)
    assert training_passes(jobs["at"], 50_000) == 150 * epoch
    assert training_passes(jobs["entropy-sgd-1"], 50_000) == 2 * 150 * epoch
    assert training_passes(jobs["entropy-sgd-5"], 50_000) == 6 * 30 * epoch
    assert training_passes(jobs["awp-0.01"], 50_000) == 150 * 50_000 * (7 + 2)


def test_autoattack_costs_what_its_attacks_iterate():
    """APGD-CE has no targets; the standard version has nine of 100 iterations."""
    reduced = {"version": "reduced", "iterations": 20, "restarts": 2, "target_classes": 3}
    assert AutoAttackSpec(**reduced, attacks=("pgd", "apgd-ce")).passes == 40
    assert AutoAttackSpec(**reduced, attacks=("apgd-ce", "apgd-t")).passes == 40 + 120
    assert AutoAttackSpec().passes == 100 + 900 + 2 * 900 + 2500


def test_limits_grow_with_work_width_and_without_a_gpu():
    assert minutes(0, SMALL, 8, "cpu") == OVERHEAD_MINUTES
    assert minutes(1e8, SMALL, 8, "cpu") > minutes(1e7, SMALL, 8, "cpu")
    assert minutes(1e7, LARGE.model_copy(update={"width": 128}), 32, "cuda") > minutes(1e7, LARGE, 32, "cuda")
    assert minutes(1e7, LARGE, 32, "cpu") > minutes(1e7, LARGE, 32, "cuda")


def test_a_plan_counts_every_job_of_the_paper():
    """74 trainings, two networks derived from them; each is measured in one job."""
    steps = plan(experiment("cifar10")).steps
    counts = {name: len(jobs) for name, jobs in steps.items()}
    assert counts == {"train": 74, "measure": 76, "pseudo_label": 1}
    assert all(job >= START for jobs in steps.values() for job in jobs)


def test_wall_time_is_bounded_by_the_work_and_by_the_longest_chain():
    paper = plan(experiment("cifar10"))
    total = sum(map(sum, paper.steps.values())) / 3600
    assert paper.wall_hours(1) == pytest.approx(total)
    assert paper.wall_hours(10_000) >= max(paper.steps["train"]) / 3600
    assert paper.wall_hours(64) < total / 20


def written(path, shape, train=240, test=120, classes=4, pool=0):
    rng = np.random.default_rng(0)
    arrays = {}
    for name, count in {"train": train, "test": test, "unlabeled": pool}.items():
        if count:
            arrays[f"x_{name}"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
            arrays[f"y_{name}"] = np.arange(count) % classes
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(("shape", "network"), [((8, 8), "small-resnet"), ((28, 20, 3), "resnet18")])
@pytest.mark.parametrize("pool", [0, 50])
def test_the_sizes_fit(tmp_path, shape, network, pool):
    data = written(tmp_path / "my.npz", shape, pool=pool)
    text = new_experiment(data, tmp_path / "my.yaml", "mine", "")
    experiment = load_experiment(yaml.safe_load(text))
    spec = experiment.spec
    assert spec.model.name == network
    splits = make_splits(spec.data, 0)
    assert len(splits["x_test"]) + len(splits["x_early_stopping"]) == 120
    assert (len(splits["x_train"]), len(splits["x_unlabeled"])) == (240, pool)
    assert ("self-supervision-4" in experiment.variants) == (shape[0] == shape[1])
    assert spec.epsilon == pytest.approx(8 / 255 if len(shape) == 3 else 0.1)
    assert text.count("#") > 10


@pytest.mark.parametrize("file", ["run #2.npz", "my: 'data'.npz", "2024.npz", "on.npz"])
def test_names_are_quoted(tmp_path, monkeypatch, file):
    monkeypatch.chdir(tmp_path)
    spec = yaml.safe_load(new_experiment(written(Path(file), (8, 8)), Path("my.yaml"), "on", ""))
    assert (spec["data"]["path"], spec["experiment"]) == (file, "on")


def test_attacks_fit_few_classes(tmp_path):
    data = written(tmp_path / "my.npz", (8, 8), classes=3)
    text = new_experiment(data, tmp_path / "my.yaml", "mine", "")
    attacks = load_experiment(yaml.safe_load(text)).measures["robustness"].autoattack.attacks
    assert attacks == ("apgd-ce", "fab-t", "square")
    values = yaml.safe_load(text)
    del values["measures"]["robustness"]["autoattack"]
    for name in ("a", "b", ".hidden"):
        (tmp_path / "train" / name).mkdir(parents=True)
    unknown = {**values["data"], "classes": None}
    for spec in (values["data"], unknown, {**unknown, "name": "folder", "path": str(tmp_path)}):
        with pytest.raises(ConfigError, match="apgd-t needs at least 4 classes"):
            load_experiment(values | {"data": spec})


def test_bad_input(tmp_path):
    data = written(tmp_path / "my.npz", (8, 8))
    with pytest.raises(ConfigError, match=r"epsilon: .*given: '2'"):
        new_experiment(data, tmp_path / "my.yaml", "mine", "2")
    with pytest.raises(ConfigError, match=r"--name: .*given: 'a b'"):
        new_experiment(data, tmp_path / "my.yaml", "a b", "")
    few = written(tmp_path / "few.npz", (8, 8), train=12, test=12)
    with pytest.raises(ConfigError, match="at least 24 of each are needed"):
        new_experiment(few, tmp_path / "my.yaml", "mine", "")
