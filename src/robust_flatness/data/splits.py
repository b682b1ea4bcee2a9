"""Drawing disjoint splits: stratified subsets, ranges, and averaging images to a smaller size."""

import numpy as np

from robust_flatness.config import ConfigError, DataSpec
from robust_flatness.config.data import SPLITS
from robust_flatness.data.dataset import Arrays
from robust_flatness.errors import warn
from robust_flatness.seeding import derive_seed

#: Images averaged at a time, to avoid a float copy of a whole set.
CHUNK = 1024


def stratified(labels: np.ndarray, sizes: dict[str, int], seed: int) -> dict[str, np.ndarray]:
    """Return disjoint index sets of the given sizes, with the class proportions of `labels`, in random order.
    Each is drawn from what the sets before it have left, so that another size changes only itself and those
    after it."""
    from sklearn.model_selection import train_test_split

    rest, parts = np.arange(len(labels)), {}
    for offset, (name, size) in enumerate(sizes.items()):
        if size == 0:
            parts[name] = rest[:0]
            continue
        if size == len(rest):
            parts[name], rest = np.random.default_rng(seed % 2**32).permutation(rest), rest[:0]
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

    Ranges name the examples, in their order. Of the other images, `test` is the head of the test images
    and `early_stopping` their tail; `train` and `unlabeled` are disjoint stratified subsets of the
    training images in their original order, or all of them. If the source has images `x_pool`, `unlabeled`
    is their head, or ranges `pool`, with their published pseudo-labels `y_pool` as `pseudo_labels`.
    """
    chosen = {split: _ranges(source, spec, split, name) for split in SPLITS if spec.ranges(split)}
    left = {}
    for part in ("train", "test"):
        taken = [index for pieces in chosen.values() for origin, index in pieces if origin == part]
        left[part] = np.setdiff1d(np.arange(len(source[f"y_{part}"])), np.concatenate([*taken, []]))
    sizes = {split: 0 if split in chosen else spec.count(split) for split in SPLITS}
    pooled = "x_pool" in source and "unlabeled" not in chosen
    if pooled and sizes["unlabeled"]:
        _require(sizes, ("unlabeled",), len(source["x_pool"]), f"x_unlabeled of {name} has {{}}")
        chosen["unlabeled"] = [("pool", np.arange(sizes["unlabeled"]))]
    drawn = ("train",) if pooled else ("train", "unlabeled")
    _require(sizes, drawn, len(left["train"]), f"{name} has {{}} training examples")
    _require(sizes, ("test", "early_stopping"), len(left["test"]), f"{name} has {{}} test examples")
    wanted = {split: sizes[split] for split in drawn if split not in chosen}
    parts = stratified(source["y_train"][left["train"]], wanted, derive_seed(seed, "splits"))
    chosen |= {split: [("train", np.sort(left["train"][index]))] for split, index in parts.items()}
    tail = len(left["test"]) - sizes["early_stopping"]
    chosen.setdefault("test", [("test", left["test"][: sizes["test"]])])
    chosen.setdefault("early_stopping", [("test", left["test"][tail:])])
    chosen.setdefault("unlabeled", [("train", left["train"][:0])])
    origins = {origin for origin, _ in chosen["unlabeled"]}
    if len(origins) > 1:
        raise ConfigError("data.unlabeled: ranges of the pool cannot be mixed with others")
    splits = {}
    for split, pieces in chosen.items():
        for kind in "xy":
            splits[f"{kind}_{split}"] = _gathered([(source[f"{kind}_{part}"], i) for part, i in pieces])
    if origins == {"pool"}:
        splits["pseudo_labels"] = splits["y_unlabeled"]
    splits["classes"] = np.int64(spec.known_classes or int(source["y_train"].max()) + 1)
    return splits


def _ranges(source: Arrays, spec: DataSpec, split: str, name: str) -> list[tuple[str, np.ndarray]]:
    """Return origin and indices of each range of a split."""
    pieces = []
    for found in spec.ranges(split):
        available = len(source.get(f"y_{found.origin}", ()))
        if found.last >= available:
            has = f"{found.origin} 0-{available - 1}" if available else f"no images called {found.origin}"
            raise ConfigError(f"data.{split}: {found} requested, but {name} has {has}")
        pieces.append((found.origin, np.arange(found.first, found.last + 1)))
    return pieces


def _require(sizes: dict[str, int], splits: tuple[str, ...], available: int, has: str) -> None:
    if sum(sizes[split] for split in splits) > available:
        names = " + ".join(f"data.{split}" for split in splits)
        requested = " + ".join(str(sizes[split]) for split in splits)
        raise ConfigError(f"{names}: {requested} examples requested, but {has.format(available)}")


def _gathered(pieces: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return the examples of all pieces one after the other; a whole array is not copied."""
    array, index = pieces[0]
    if len(pieces) == 1 and np.array_equal(index, np.arange(len(array))):
        return array
    return np.concatenate([array[index] for array, index in pieces])


def averaged(images: np.ndarray, size: int | None, name: str) -> np.ndarray:
    """Return uint8 images [n, C, H, W] averaged over squares to [n, C, size, size], rounded to uint8."""
    height, width = images.shape[2:]
    if size is None or (height, width) == (size, size):
        return images
    if height % size or width % size:
        raise ConfigError(f"data.size: {size} given; it must divide the sides of {name}, {height}x{width}")
    small = np.empty((*images.shape[:2], size, size), dtype=np.uint8)
    for start in range(0, len(images), CHUNK):
        part = images[start : start + CHUNK]
        squares = part.reshape(*part.shape[:2], size, height // size, size, width // size)
        small[start : start + CHUNK] = np.rint(squares.mean((3, 5), dtype=np.float32))
    return small


def warn_of_missing_classes(labels: np.ndarray, classes: int, name: str) -> None:
    """Warn if a class has no training image, as when labels are counted from one."""
    missing = sorted({*range(classes)} - {*np.unique(labels).tolist()})
    if missing:
        labels = ", ".join(map(str, missing))
        warn(f"{name}: no training image has label {labels}, of {classes} classes; labels start at 0")
