"""From a dataset's source to disjoint splits: training, unlabelled pool, early stopping, test.

The splits belong to the dataset: they are drawn once, by seed, written to one file, and every
job reads its examples from there.
"""

import zipfile
from pathlib import Path

import numpy as np

from robust_flatness.config import ConfigError, DataSpec
from robust_flatness.seeding import derive_seed

Arrays = dict[str, np.ndarray]
KEYS = ("x_train", "y_train", "x_test", "y_test")
#: Images without labels, and labels somebody predicted for them.
POOL_KEYS = ("x_unlabeled", "y_unlabeled")


def make_splits(spec: DataSpec, seed: int) -> Arrays:
    """Images uint8 [n, C, H, W] and labels int64 [n] of each split, as `x_<split>`, `y_<split>`.

    `digits`: all four splits are stratified random subsets. `npz`: `test` is the head of the test
    set and `early_stopping` its tail (as in the paper's use of CIFAR-10); `train` and `unlabeled`
    are disjoint stratified subsets of the training set in their original order, or the whole of it.
    The pool's labels are left out: nothing after this function can read them. A file with images
    `x_unlabeled` has the pool from there (its head), and their published pseudo-labels `y_unlabeled`,
    kept as `pseudo_labels`.

    Raises
    ------
    ConfigError
        If the file is missing or malformed, or the sizes asked for exceed the data.
    """
    if spec.name == "digits":
        x, y = _digits()
        sizes = {name: getattr(spec, name) for name in ("test", "early_stopping", "train", "unlabeled")}
        parts = _stratified(y, sizes, derive_seed(seed, "splits"))
        splits = {f"x_{name}": x[index] for name, index in parts.items()}
        splits |= {f"y_{name}": y[index] for name, index in parts.items()}
        classes = spec.classes or 10
    else:
        source = read_npz(Path(spec.path), spec.classes)
        splits, classes = _npz_splits(source, spec, seed)
    splits.pop("y_unlabeled", None)
    pixels = splits["x_train"].astype(np.float64) / 255
    splits["classes"] = np.int64(classes)
    splits["mean"] = pixels.mean((0, 2, 3))
    # a constant channel would be divided by zero
    splits["std"] = np.maximum(pixels.std((0, 2, 3)), 1e-3)
    return splits


def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return images[:, None], digits.target.astype(np.int64)


def _stratified(labels: np.ndarray, sizes: dict[str, int], seed: int) -> dict[str, np.ndarray]:
    """Disjoint index sets of the given sizes, each with the classes' shares, in random order."""
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
            raise ConfigError(
                f"data.{name}: {size} examples cannot be drawn with all classes in it and in what is left "
                f"({len(rest)} examples): {error}; choose another size"
            ) from None
    return parts


def _npz_splits(source: Arrays, spec: DataSpec, seed: int) -> tuple[Arrays, int]:
    path, available = spec.path, len(source["y_test"])
    if spec.test + spec.early_stopping > available:
        raise ConfigError(
            f"data.test + data.early_stopping: {spec.test} + {spec.early_stopping} examples asked for, "
            f"but {path} has {available} test examples"
        )
    given = "x_unlabeled" in source
    if given and spec.unlabeled > len(source["x_unlabeled"]):
        raise ConfigError(
            f"data.unlabeled: {spec.unlabeled} examples asked for, but x_unlabeled of {path} has "
            f"{len(source['x_unlabeled'])}"
        )
    available = len(source["y_train"])
    if given and spec.train > available:
        raise ConfigError(
            f"data.train: {spec.train} examples asked for, but {path} has {available} training examples"
        )
    if not given and spec.train + spec.unlabeled > available:
        raise ConfigError(
            f"data.train + data.unlabeled: {spec.train} + {spec.unlabeled} examples asked for, "
            f"but {path} has {available} training examples"
        )
    sizes = {"train": spec.train} if given else {"train": spec.train, "unlabeled": spec.unlabeled}
    parts = _stratified(source["y_train"], sizes, derive_seed(seed, "splits"))
    splits = {}
    for name, index in parts.items():
        splits[f"x_{name}"] = source["x_train"][np.sort(index)]
        splits[f"y_{name}"] = source["y_train"][np.sort(index)]
    if given:
        splits["x_unlabeled"] = source["x_unlabeled"][: spec.unlabeled]
        splits["pseudo_labels"] = source["y_unlabeled"][: spec.unlabeled]
    ends = {"test": slice(spec.test), "early_stopping": slice(-spec.early_stopping, None)}
    for name, part in ends.items():
        splits[f"x_{name}"] = source["x_test"][part]
        splits[f"y_{name}"] = source["y_test"][part]
    return splits, spec.classes or int(source["y_train"].max()) + 1


def read_npz(path: Path, classes: int | None = None) -> Arrays:
    """A user's arrays `x_train, y_train, x_test, y_test` and, if it has them, `x_unlabeled,
    y_unlabeled`; images brought to uint8 [n, C, H, W].

    Raises
    ------
    ConfigError
        If the file cannot be read, a key is missing, a shape or dtype is wrong, or a label lies
        outside 0..K-1.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            keys = KEYS + POOL_KEYS if set(POOL_KEYS) & set(file.files) else KEYS
            missing = [key for key in keys if key not in file.files]
            if missing:
                raise ConfigError(
                    f"{path}: {', '.join(missing)} missing (found: {', '.join(file.files)}); "
                    f"needed are {', '.join(keys)}"
                )
            source = {key: file[key] for key in keys}
    except FileNotFoundError:
        raise ConfigError(f"data.path: {path}: no such file") from None
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: not a readable .npz file of plain arrays ({error})") from None
    except Exception as error:  # zlib and struct raise their own on damaged archives
        raise ConfigError(f"{path}: damaged .npz file ({error})") from None
    parts = [key.removeprefix("x_") for key in keys if key.startswith("x_")]
    for part in parts:
        source[f"x_{part}"] = _images(path, f"x_{part}", source[f"x_{part}"])
        source[f"y_{part}"] = _labels(path, f"y_{part}", source[f"y_{part}"], len(source[f"x_{part}"]))
    shapes = {part: source[f"x_{part}"].shape[1:] for part in parts}
    for part, shape in shapes.items():
        if shape != shapes["train"]:
            raise ConfigError(
                f"{path}: x_train has images of shape {shapes['train']}, x_{part} of {shape} (C, H, W)"
            )
    count = classes or int(source["y_train"].max()) + 1
    for part in parts:
        labels = source[f"y_{part}"]
        if labels.min() < 0 or labels.max() >= count:
            raise ConfigError(
                f"{path}: y_{part} holds labels from {labels.min()} to {labels.max()}; "
                f"allowed are 0 to {count - 1} ({count} classes)"
            )
    return source


def _images(path: Path, key: str, array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8:
        nans = np.issubdtype(array.dtype, np.floating) and np.isnan(array).any()
        raise ConfigError(
            f"{path}: {key} has dtype {array.dtype}{' and contains NaN' if nans else ''}; "
            "images must be uint8 (0 to 255)"
        )
    if array.ndim not in (3, 4) or 0 in array.shape or (array.ndim == 4 and array.shape[3] not in (1, 3, 4)):
        raise ConfigError(
            f"{path}: {key} has shape {array.shape}; images must be [n, height, width] or "
            "[n, height, width, channels] with 1, 3 or 4 channels"
        )
    return array[:, None] if array.ndim == 3 else np.ascontiguousarray(array.transpose(0, 3, 1, 2))


def _labels(path: Path, key: str, array: np.ndarray, count: int) -> np.ndarray:
    if array.ndim != 1 or len(array) != count:
        raise ConfigError(f"{path}: {key} has shape {array.shape}; expected ({count},), a label per image")
    if not np.issubdtype(array.dtype, np.integer):
        nans = np.issubdtype(array.dtype, np.floating) and np.isnan(array).any()
        raise ConfigError(
            f"{path}: {key} has dtype {array.dtype}{' and contains NaN' if nans else ''}; "
            "labels must be integers"
        )
    return array.astype(np.int64)
