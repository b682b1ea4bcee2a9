"""Splits of a dataset that comes with training and test images of its own, as the paper uses CIFAR-10."""

import numpy as np

from robust_flatness.config import ConfigError, DataSpec
from robust_flatness.config.data import SPLITS
from robust_flatness.data.subsets import stratified
from robust_flatness.seeding import derive_seed

Arrays = dict[str, np.ndarray]
#: Images averaged at a time: no float copy of a whole set is made.
CHUNK = 1024


def split_official(source: Arrays, spec: DataSpec, seed: int, name: str) -> Arrays:
    """`x_<split>`, `y_<split>` from `x_train`, `y_train`, `x_test`, `y_test`, called `name` in messages.

    Ranges name the examples, in their order. Of what ranges leave, `test` is the head of the test images
    and `early_stopping` their tail; `train` and `unlabeled` are disjoint stratified subsets of the
    training images in their original order, or the whole of them. A source with images `x_pool` has the
    pool from there (its head, or ranges `pool`), and their published pseudo-labels `y_pool`, kept as
    `pseudo_labels`.

    Raises
    ------
    ConfigError
        If the sizes or ranges asked for exceed the data, or a pool has both kinds of images.
    """
    chosen = {split: _ranges(source, spec, split, name) for split in SPLITS if spec.ranges(split)}
    taken = {part: np.zeros(len(source[f"y_{part}"]), dtype=bool) for part in ("train", "test")}
    for pieces in chosen.values():
        for origin, index in pieces:
            if origin in taken:
                taken[origin][index] = True
    left = {part: np.flatnonzero(~mask) for part, mask in taken.items()}
    sizes = {split: 0 if split in chosen else spec.count(split) for split in SPLITS}
    given = "x_pool" in source and "unlabeled" not in chosen
    if given and sizes["unlabeled"]:
        _require(sizes, ("unlabeled",), len(source["x_pool"]), f"x_unlabeled of {name} has {{}}")
        chosen["unlabeled"] = [("pool", np.arange(sizes["unlabeled"]))]
    drawn = ("train",) if given else ("train", "unlabeled")
    _require(sizes, drawn, len(left["train"]), f"{name} has {{}} training examples")
    _require(sizes, ("test", "early_stopping"), len(left["test"]), f"{name} has {{}} test examples")
    wanted = {split: sizes[split] for split in drawn if split not in chosen}
    parts = stratified(source["y_train"][left["train"]], wanted, derive_seed(seed, "splits"))
    chosen |= {split: [("train", np.sort(left["train"][index]))] for split, index in parts.items()}
    ends = {
        "test": slice(sizes["test"]),
        "early_stopping": slice(len(left["test"]) - sizes["early_stopping"], None),
    }
    chosen |= {split: [("test", left["test"][part])] for split, part in ends.items() if split not in chosen}
    chosen.setdefault("unlabeled", [("train", left["train"][:0])])
    origins = {origin for origin, _ in chosen["unlabeled"]}
    if len(origins) > 1:
        raise ConfigError(
            "data.unlabeled: images of the pool and others given; its pseudo-labels are of the pool alone"
        )
    splits = {}
    for split, pieces in chosen.items():
        splits[f"x_{split}"] = _gathered([source[f"x_{origin}"] for origin, _ in pieces], pieces)
        splits[f"y_{split}"] = _gathered([source[f"y_{origin}"] for origin, _ in pieces], pieces)
    if origins == {"pool"}:
        splits["pseudo_labels"] = splits["y_unlabeled"]
    splits["classes"] = np.int64(spec.known_classes or int(source["y_train"].max()) + 1)
    return splits


def _ranges(source: Arrays, spec: DataSpec, split: str, name: str) -> list[tuple[str, np.ndarray]]:
    """Origin and indices of each range of a split."""
    pieces = []
    for origin, first, last in spec.ranges(split):
        available = len(source.get(f"y_{origin}", ()))
        if last >= available:
            has = f"{origin} 0-{available - 1}" if available else f"no images called {origin}"
            raise ConfigError(f"data.{split}: {origin} {first}-{last} asked for, but {name} has {has}")
        pieces.append((origin, np.arange(first, last + 1)))
    return pieces


def _require(sizes: dict[str, int], splits: tuple[str, ...], available: int, has: str) -> None:
    if sum(sizes[split] for split in splits) > available:
        names = " + ".join(f"data.{split}" for split in splits)
        asked = " + ".join(str(sizes[split]) for split in splits)
        raise ConfigError(f"{names}: {asked} examples asked for, but {has.format(available)}")


def _gathered(arrays: list[np.ndarray], pieces: list[tuple[str, np.ndarray]]) -> np.ndarray:
    """The examples of all pieces one after the other; a whole array is not copied."""
    if len(pieces) == 1:
        array, (_, index) = arrays[0], pieces[0]
        return array if np.array_equal(index, np.arange(len(array))) else array[index]
    return np.concatenate([array[index] for array, (_, index) in zip(arrays, pieces, strict=True)])


def averaged(images: np.ndarray, size: int | None, name: str) -> np.ndarray:
    """uint8 images [n, C, H, W] averaged over equal squares to [n, C, size, size], rounded to uint8.

    Raises
    ------
    ConfigError
        If `size` does not divide both sides of the images.
    """
    height, width = images.shape[2:]
    if size is None or (height, width) == (size, size):
        return images
    if height % size or width % size:
        raise ConfigError(
            f"data.size: {size} given; it does not divide {height}x{width}, the images of {name}"
        )
    small = np.empty((*images.shape[:2], size, size), dtype=np.uint8)
    for start in range(0, len(images), CHUNK):
        part = images[start : start + CHUNK]
        squares = part.reshape(*part.shape[:2], size, height // size, size, width // size)
        small[start : start + CHUNK] = np.rint(squares.mean((3, 5), dtype=np.float32))
    return small
