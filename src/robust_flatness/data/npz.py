"""Images and labels of a user's .npz file, validated and converted to one format."""

from pathlib import Path

import numpy as np

from robust_flatness.config import DataSpec
from robust_flatness.data.dataset import Arrays
from robust_flatness.data.splits import averaged, split_official
from robust_flatness.errors import FileError

KEYS = ("x_train", "y_train", "x_test", "y_test")
POOL_KEYS = ("x_unlabeled", "y_unlabeled")


def splits(spec: DataSpec, seed: int) -> Arrays:
    """Return the splits (see `split_official`) of `spec.path`, with images averaged to `spec.size`."""
    source = {key.replace("unlabeled", "pool"): a for key, a in read_npz(Path(spec.path)).items()}
    images = {key: averaged(x, spec.size, spec.path) for key, x in source.items() if key.startswith("x_")}
    return split_official(source | images, spec, seed, spec.path)


def classes(path: Path) -> int:
    """Return the number of classes of the training labels of a file, the only array that is read."""
    with np.load(path, allow_pickle=False) as file:
        labels = file["y_train"]
    return int(_labels(str(path), labels, len(labels)).max()) + 1


def read_npz(path: Path, *, to_measure: bool = False) -> Arrays:
    """Return the arrays `x_train, y_train, x_test, y_test` of a file and, if present, the extra images with
    pseudo-labels `x_unlabeled, y_unlabeled`: images as uint8 [n, C, H, W], labels as int64 [n].

    Images may be [n, H, W], [n, H, W, C] or [n, C, H, W], as uint8 or multiples of 1/255 in [0, 1]; labels
    integers, a column of them, or one-hot. With `to_measure`, training images may be missing, and other
    floats in [0, 1] become float32.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            source = {key: file[key] for key in KEYS + POOL_KEYS if key in file.files}
    except Exception as error:  # damaged files raise errors of zipfile, zlib, struct and NumPy
        raise FileError(f"{path}: not a readable .npz file of named arrays of numbers ({error})") from None
    keys = KEYS + POOL_KEYS if {*POOL_KEYS} & {*source} else KEYS
    if to_measure and not {*KEYS[:2]} & {*source}:
        keys = KEYS[2:]
    if missing := ", ".join(key for key in keys if key not in source):
        raise FileError(f"{path}: {missing} missing; required are {', '.join(keys)}")
    images = {key: _images(f"{path}: {key}", source[key], to_measure) for key in keys if key[0] == "x"}
    labels = {key: _labels(f"{path}: {key}", source[key], len(images[f"x{key[1:]}"]))
              for key in keys if key[0] == "y"}  # fmt: skip
    if len({x.shape[1:] for x in images.values()}) > 1:
        found = ", ".join(f"{key} {x.shape[1:]}" for key, x in images.items())
        raise FileError(f"{path}: images of different shapes (C, H, W): {found}")
    return images | labels


def _images(where: str, array: np.ndarray, keep_floats: bool) -> np.ndarray:
    """Return images as uint8 (or float32) [n, C, H, W]."""
    first, last = (array.ndim == 4 and array.shape[place] in (1, 3, 4) for place in (1, 3))
    if array.ndim not in (3, 4) or 0 in array.shape or (array.ndim == 4 and first == last):
        layouts = "[n, height, width], [n, height, width, channels] or [n, channels, height, width]"
        sizes = "1, 3 or 4 channels and more than 4 pixels a side"
        raise FileError(f"{where} has shape {array.shape}; images must be {layouts}, with {sizes}")
    if np.issubdtype(array.dtype, np.floating):
        array = _from_floats(where, array, keep_floats)
    elif array.dtype != np.uint8:
        raise FileError(f"{where} has dtype {array.dtype}; images must be uint8 or floats in [0, 1]")
    if array.ndim == 3:
        return array[:, None]
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2) if last else array)


def _from_floats(where: str, array: np.ndarray, keep: bool) -> np.ndarray:
    """Return multiples of 1/255 as uint8, or, if `keep`, other floats in [0, 1] as float32."""
    low, high = array.min(), array.max()
    if low >= 0 and high <= 1:
        whole = np.rint(array * 255)
        if np.abs(array * 255 - whole).max() < 1e-3:
            return whole.astype(np.uint8)
        if keep:
            return array.astype(np.float32)
    hint = "divide them by their largest possible value, and normalise in the network (--mean, --std)"
    allowed = f"images must be uint8 or multiples of 1/255 in [0, 1]; {hint}"
    raise FileError(f"{where} has values from {low:.4g} to {high:.4g}; {allowed}")


def _labels(where: str, array: np.ndarray, count: int) -> np.ndarray:
    shape = array.shape
    if array.ndim == 2 and shape[1] == 1:
        array = array[:, 0]
    elif array.ndim == 2 and np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all():
        array = array.argmax(axis=1)
    if array.shape != (count,):
        raise FileError(f"{where} has shape {shape}; expected ({count},), a label per image")
    if not np.issubdtype(array.dtype, np.integer) or array.min() < 0:
        raise FileError(f"{where} has dtype {array.dtype}; labels must be integers from 0 on")
    return array.astype(np.int64)
