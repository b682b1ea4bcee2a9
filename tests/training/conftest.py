"""A tiny dataset and jobs that train on it within fractions of a second."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from robust_flatness.config import ModelSpec, TrainingSpec, TrainJob
from robust_flatness.data import Dataset
from robust_flatness.experiment import load_experiment

CLASSES = 3
CONFIG = Path(__file__).parents[2] / "config"


def _images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """8x8 grey images of three classes: a bright bar at one of three heights, and noise."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    images = random.integers(0, 90, (count, 1, 8, 8))
    for image, label in zip(images, labels, strict=True):
        image[0, 3 * label : 3 * label + 2] += 120
    return images.astype(np.uint8), labels.astype(np.int64)


@pytest.fixture
def make_dataset():
    """Dataset of bars; sizes by split."""

    def make(train=20, unlabeled=12, early_stopping=9, test=12, seed=0) -> Dataset:
        sizes = {"train": train, "unlabeled": unlabeled, "early_stopping": early_stopping, "test": test}
        arrays = {}
        for number, (split, size) in enumerate(sizes.items()):
            x, y = _images(size, seed=10 * seed + number)
            arrays |= {f"x_{split}": x, f"y_{split}": y}
        del arrays["y_unlabeled"]
        pixels = arrays["x_train"] / 255
        statistics = {"mean": pixels.mean((0, 2, 3)), "std": pixels.std((0, 2, 3))}
        return Dataset({**arrays, **statistics, "classes": np.int64(CLASSES)})

    return make


@pytest.fixture
def dataset(make_dataset):
    return make_dataset()


@pytest.fixture
def make_job():
    """A job of 3 epochs with 5 updates each; settings of training and network by keyword."""

    def make(seed=0, model=None, **settings) -> TrainJob:
        values = {
            "epochs": 3, "batch_size": 4, "learning_rate": 0.05, "weight_decay": 0.0005, "snapshots": 2,
            "epsilon": 0.1, "step_size": 0.05, "steps": 2, "early_stopping_restarts": 1,
            "evaluation_epsilon": 0.1, "evaluation_step_size": 0.05, "evaluation_steps": 2,
        } | settings  # fmt: skip
        network = ModelSpec(**{"name": "small-resnet", "width": 2, **(model or {})})
        return TrainJob(variant="tiny", seed=seed, model=network, training=TrainingSpec(**values))

    return make


@pytest.fixture(scope="session")
def experiment():
    """The catalogue with the settings of the smoke test."""
    config = yaml.safe_load((CONFIG / "smoke.yaml").read_text())
    sizes = {"batch-size-8": 2, "batch-size-16": 3, "batch-size-32": 4, "batch-size-64": 5}
    config["overrides"] = {slug: {"set": {"batch_size": size}} for slug, size in sizes.items()}
    config |= {"measures": {}, "variants": "all"}
    return load_experiment(config, CONFIG / "variants.yaml")
