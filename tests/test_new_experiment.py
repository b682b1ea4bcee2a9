"""A config for a user's data fits the data, and is refused where the data cannot be used."""

import numpy as np
import pytest
import yaml

from robust_flatness.data import make_splits
from robust_flatness.errors import ConfigError
from robust_flatness.experiment import load_experiment
from robust_flatness.experiment.new import new_experiment


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
    assert len(splits["x_train"]) + (0 if pool else len(splits["x_unlabeled"])) == 240
    assert ("self-supervision-4" in experiment.variants) == (shape[0] == shape[1])
    assert spec.epsilon == pytest.approx(8 / 255 if len(shape) == 3 else 0.1)
    assert text.count("#") > 10


def test_bad_input(tmp_path):
    data = written(tmp_path / "my.npz", (8, 8))
    with pytest.raises(ConfigError, match=r"--epsilon: .*given: '2'"):
        new_experiment(data, tmp_path / "my.yaml", "mine", "2")
    with pytest.raises(ConfigError, match=r"--name: .*given: 'a b'"):
        new_experiment(data, tmp_path / "my.yaml", "a b", "")
    few = written(tmp_path / "few.npz", (8, 8), train=12, test=12)
    with pytest.raises(ConfigError, match="at least 24 of each are needed"):
        new_experiment(few, tmp_path / "my.yaml", "mine", "")
