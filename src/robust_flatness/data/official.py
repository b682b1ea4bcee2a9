"""Splits of a dataset that comes with training and test images of its own, as the paper uses CIFAR-10."""

import numpy as np

from robust_flatness.config import ConfigError, DataSpec
from robust_flatness.data.subsets import stratified
from robust_flatness.seeding import derive_seed

Arrays = dict[str, np.ndarray]


def split_official(source: Arrays, spec: DataSpec, seed: int, name: str) -> Arrays:
    """`x_<split>`, `y_<split>` from `x_train`, `y_train`, `x_test`, `y_test`, called `name` in messages.

    `test` is the head of the test images and `early_stopping` their tail; `train` and `unlabeled` are
    disjoint stratified subsets of the training images in their original order, or the whole of them. A
    source with images `x_unlabeled` has the pool from there (its head), and their published
    pseudo-labels `y_unlabeled`, kept as `pseudo_labels`.

    Raises
    ------
    ConfigError
        If the sizes asked for exceed the data.
    """
    available = len(source["y_test"])
    if spec.test + spec.early_stopping > available:
        raise ConfigError(
            f"data.test + data.early_stopping: {spec.test} + {spec.early_stopping} examples asked for, "
            f"but {name} has {available} test examples"
        )
    given = "x_unlabeled" in source
    if given and spec.unlabeled > len(source["x_unlabeled"]):
        raise ConfigError(
            f"data.unlabeled: {spec.unlabeled} examples asked for, but x_unlabeled of {name} has "
            f"{len(source['x_unlabeled'])}"
        )
    available = len(source["y_train"])
    if given and spec.train > available:
        raise ConfigError(
            f"data.train: {spec.train} examples asked for, but {name} has {available} training examples"
        )
    if not given and spec.train + spec.unlabeled > available:
        raise ConfigError(
            f"data.train + data.unlabeled: {spec.train} + {spec.unlabeled} examples asked for, "
            f"but {name} has {available} training examples"
        )
    sizes = {"train": spec.train} if given else {"train": spec.train, "unlabeled": spec.unlabeled}
    parts = stratified(source["y_train"], sizes, derive_seed(seed, "splits"))
    splits = {}
    for split, index in parts.items():
        splits[f"x_{split}"] = source["x_train"][np.sort(index)]
        splits[f"y_{split}"] = source["y_train"][np.sort(index)]
    if given:
        splits["x_unlabeled"] = source["x_unlabeled"][: spec.unlabeled]
        splits["pseudo_labels"] = source["y_unlabeled"][: spec.unlabeled]
    ends = {"test": slice(spec.test), "early_stopping": slice(-spec.early_stopping, None)}
    for split, part in ends.items():
        splits[f"x_{split}"] = source["x_test"][part]
        splits[f"y_{split}"] = source["y_test"][part]
    splits["classes"] = np.int64(spec.classes or int(source["y_train"].max()) + 1)
    return splits
