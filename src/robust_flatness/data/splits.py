"""Disjoint splits of a dataset, and averaging of images to a smaller size."""

import numpy as np

from robust_flatness.config import DataSpec
from robust_flatness.config.data import SPLITS, Range
from robust_flatness.data.dataset import Arrays
from robust_flatness.errors import ConfigError, FileError, warn
from robust_flatness.seeding import derive_seed


def stratified(labels: np.ndarray, sizes: dict[str, int], seed: int) -> dict[str, np.ndarray]:
    """Return disjoint index sets of the given sizes, with the class proportions of `labels`, in random order.
    Each is drawn from what earlier sets leave, so that a size affects no earlier set."""
    from sklearn.model_selection import train_test_split

    rest, parts = np.arange(len(labels)), {}
    for offset, (name, size) in enumerate(sizes.items()):
        if size in (0, len(rest)):
            parts[name] = np.random.default_rng(seed % 2**32).permutation(rest)[:size]
            rest = rest[: len(rest) - size]
            continue
        try:
            parts[name], rest = train_test_split(
                rest, train_size=size, stratify=labels[rest], random_state=(seed + offset) % 2**32
            )
        except ValueError as error:
            drawn = f"{size} examples cannot be drawn with all classes from {len(rest)}"
            raise ConfigError(f"data.{name}: {drawn} ({error})") from None
    return parts


def split_official(source: Arrays, spec: DataSpec, seed: int, name: str) -> Arrays:
    """Return `x_<split>`, `y_<split>` from `x_train`, `y_train`, `x_test`, `y_test` of the dataset `name`.

    Ranges are taken in their order. Of the other images, `test` is the head of the test images and
    `early_stopping` their tail; `train` and `unlabeled` are disjoint stratified subsets of the training
    images in their original order. If the source has images `x_pool`, `unlabeled` is their head, with the
    published pseudo-labels `y_pool` as `pseudo_labels`.
    """
    classes = spec.known_classes or int(source["y_train"].max()) + 1
    for key, labels in source.items():
        if key.startswith("y_") and not 0 <= labels.min() <= labels.max() < classes:
            given = f"{labels.min()} to {labels.max()}"
            raise FileError(f"{name}: {key} has labels {given}; allowed are 0 to {classes - 1}")
    ranges = {split: spec.ranges(split) for split in SPLITS}
    if "x_pool" in source and not ranges["unlabeled"] and spec.unlabeled:
        ranges["unlabeled"] = (Range("pool", 0, spec.unlabeled - 1),)
    left = {key[2:]: np.arange(len(labels)) for key, labels in source.items() if key.startswith("y_")}
    chosen: dict[str, list[tuple[str, np.ndarray]]] = {}
    for split in SPLITS:
        for found in ranges[split]:
            found.require(f"data.{split}", name, len(source.get(f"y_{found.origin}", ())))
            index = np.arange(found.first, found.last + 1)
            chosen.setdefault(split, []).append((found.origin, index))
            left[found.origin] = np.setdiff1d(left[found.origin], index)
    sizes = {split: 0 if split in chosen else spec.count(split) for split in SPLITS}
    tail = len(left["test"]) - sizes["early_stopping"]
    if tail < sizes["test"]:
        requested = f"{sizes['test']} + {sizes['early_stopping']} examples requested"
        available = f"{name} has {len(left['test'])} test examples"
        raise ConfigError(f"data.test + data.early_stopping: {requested}, but {available}")
    chosen.setdefault("test", [("test", left["test"][: sizes["test"]])])
    chosen.setdefault("early_stopping", [("test", left["test"][tail:])])
    wanted = {split: sizes[split] for split in ("train", "unlabeled") if split not in chosen}
    drawn = stratified(source["y_train"][left["train"]], wanted, derive_seed(seed, "splits"))
    for split, index in drawn.items():
        chosen[split] = [("train", np.sort(left["train"][index]))]
    splits = {
        f"{kind}_{split}": np.concatenate([source[f"{kind}_{origin}"][index] for origin, index in pieces])
        for split, pieces in chosen.items()
        for kind in "xy"
    }
    if chosen["unlabeled"][0][0] == "pool":
        splits["pseudo_labels"] = splits["y_unlabeled"]
    return splits | {"classes": np.int64(classes)}


def averaged(images: np.ndarray, size: int | None, name: str) -> np.ndarray:
    """Return uint8 images [n, C, H, W] averaged over squares to [n, C, size, size], rounded to uint8."""
    height, width = images.shape[2:]
    if size is None or (height, width) == (size, size):
        return images
    if height % size or width % size:
        raise ConfigError(f"data.size: {size} given; it must divide the sides of {name}, {height}x{width}")
    squares = images.reshape(*images.shape[:2], size, height // size, size, width // size)
    small = squares.mean((3, 5), dtype=np.float32)
    return np.rint(small, out=small).astype(np.uint8)


def warn_of_missing_classes(labels: np.ndarray, classes: int, name: str) -> None:
    """Warn if a class has no training image, for example because labels start at 1."""
    missing = np.setdiff1d(np.arange(classes), labels)
    if len(missing):
        none = f"no training image has label {', '.join(map(str, missing))}, of {classes} classes"
        warn(f"{name}: {none}; labels start at 0")
