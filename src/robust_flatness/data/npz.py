"""A user's arrays in an .npz file, checked and brought to one form."""

from pathlib import Path

import numpy as np

from robust_flatness.config import DataSpec
from robust_flatness.data.dataset import Arrays
from robust_flatness.data.splits import averaged, split_official
from robust_flatness.errors import FileError

KEYS = ("x_train", "y_train", "x_test", "y_test")
#: Extra images with pseudo-labels.
POOL_KEYS = ("x_unlabeled", "y_unlabeled")
#: Allowed numbers of channels.
CHANNELS = (1, 3, 4)


def splits(spec: DataSpec, seed: int) -> Arrays:
    """Return the splits of the file `spec.path` (see `split_official`)."""
    source = read_npz(Path(spec.path), spec.classes)
    for key in [key for key in source if key.startswith("x_")]:
        source[key] = averaged(source[key], spec.size, spec.path)
    if "x_unlabeled" in source:
        source["x_pool"], source["y_pool"] = source.pop("x_unlabeled"), source.pop("y_unlabeled")
    return split_official(source, spec, seed, spec.path)


def read_npz(path: Path, classes: int | None = None, *, to_measure: bool = False) -> Arrays:
    """Return a user's arrays `x_train, y_train, x_test, y_test` and, if present, `x_unlabeled, y_unlabeled`;
    images as uint8 [n, C, H, W], labels as int64 [n].

    Images may be [n, H, W], [n, H, W, C] or [n, C, H, W], as uint8, floats in [0, 1] or integral floats up
    to 255; labels integers, integral floats, a column, or one-hot. With `to_measure`, training images may
    be missing, and floats in [0, 1] that are not multiples of 1/255 stay floats.
    """
    source = _read(path, to_measure)
    parts = [key.removeprefix("x_") for key in source if key.startswith("x_")]
    for part in parts:
        source[f"x_{part}"] = _images(f"{path}: x_{part}", source[f"x_{part}"], to_measure)
        source[f"y_{part}"] = _labels(f"{path}: y_{part}", source[f"y_{part}"], len(source[f"x_{part}"]))
    first = parts[0]
    count = classes or int(source[f"y_{first}"].max()) + 1
    for part in parts:
        shape, other = source[f"x_{first}"].shape[1:], source[f"x_{part}"].shape[1:]
        if shape != other:
            raise FileError(f"{path}: x_{first} has images of shape {shape}, x_{part} of {other} (C, H, W)")
        low, high = source[f"y_{part}"].min(), source[f"y_{part}"].max()
        if low < 0 or high >= count:
            raise FileError(f"{path}: y_{part} has labels {low} to {high}; allowed are 0 to {count - 1}")
    return source


def _read(path: Path, to_measure: bool) -> Arrays:
    """Return the arrays as they are in the file."""
    if not Path(path).exists():
        raise FileError(f"data.path: {path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as file:
            keys = KEYS + POOL_KEYS if set(POOL_KEYS) & set(file.files) else KEYS
            if to_measure and not {"x_train", "y_train"} & set(file.files):
                keys = KEYS[2:]
            missing = [key for key in keys if key not in file.files]
            if not missing:
                return {key: file[key] for key in keys}
    except Exception as error:  # zipfile, zlib, struct and NumPy raise their own for damaged files
        raise FileError(f"{path}: not a readable .npz file of named arrays of numbers ({error})") from None
    raise FileError(f"{path}: {', '.join(missing)} missing; required are {', '.join(keys)}")


def _images(where: str, array: np.ndarray, keep_floats: bool) -> np.ndarray:
    """Return images as uint8 (or float32) [n, C, H, W]."""
    if np.issubdtype(array.dtype, np.floating) and array.size:
        array = _from_floats(where, array, keep_floats)
    elif array.dtype != np.uint8:
        raise FileError(f"{where} has dtype {array.dtype}; images must be uint8 or floats in [0, 1]")
    first, last = (array.ndim == 4 and array.shape[place] in CHANNELS for place in (1, 3))
    if array.ndim not in (3, 4) or 0 in array.shape or (array.ndim == 4 and not first and not last):
        layouts = "[n, height, width], [n, height, width, channels] or [n, channels, height, width]"
        raise FileError(f"{where} has shape {array.shape}; images must be {layouts} with 1, 3 or 4 channels")
    if array.ndim == 3:
        return array[:, None]
    if first and last:  # narrow images: take the layout in which they are square
        _, a, b, c = array.shape
        if (a == b) == (b == c):
            ambiguous = "whose channels may be first or last"
            raise FileError(f"{where} has shape {array.shape}, {ambiguous}; pad the images")
        last = a == b
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2) if last else array)


def _from_floats(where: str, array: np.ndarray, keep: bool) -> np.ndarray:
    """Return multiples of 1/255 and integers up to 255 as uint8, or, if `keep`, others as float32."""
    low, high = array.min(), array.max()
    allowed = "images must be uint8 (0 to 255) or multiples of 1/255 in [0, 1]"
    if not (low >= 0 and high <= 255):
        values = "NaN" if np.isnan(low) else f"values from {low:.4g} to {high:.4g}"
        raise FileError(f"{where} has {values}; {allowed}: normalise in the network (--mean, --std)")
    scaled = array if high > 1 else array * 255
    whole = np.rint(scaled)
    if 1 < high <= 100 and (whole == scaled).all():
        hint = "divide them by their largest possible value, or convert them to uint8 (0 to 255)"
        raise FileError(f"{where} has integral floats from {low:.4g} to {high:.4g}: {hint}")
    if np.abs(scaled - whole).max() < 1e-3:
        return whole.astype(np.uint8)
    if keep and high <= 1:
        return array.astype(np.float32)
    wrong = f"values from {low:.4g} to {high:.4g} that are not multiples of 1/255"
    raise FileError(f"{where} has {wrong}; {allowed}")


def _labels(where: str, array: np.ndarray, count: int) -> np.ndarray:
    """Return labels as int64 [n]."""
    given = array
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    elif array.ndim == 2 and np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all():
        array = array.argmax(axis=1)
    if array.shape != (count,):
        raise FileError(f"{where} has shape {given.shape}; expected ({count},), a label per image")
    whole = np.issubdtype(array.dtype, np.floating) and (array == np.rint(array)).all()
    if not np.issubdtype(array.dtype, np.integer) and not whole:
        raise FileError(f"{where} has dtype {array.dtype}; labels must be integers, without NaN")
    return array.astype(np.int64)
