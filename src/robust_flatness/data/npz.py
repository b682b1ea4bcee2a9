"""A user's arrays in an .npz file, checked before anything is made of them."""

import zipfile
from pathlib import Path

import numpy as np

from robust_flatness.config import DataSpec
from robust_flatness.data.official import Arrays, averaged, split_official
from robust_flatness.errors import FileError, warn

KEYS = ("x_train", "y_train", "x_test", "y_test")
#: Images without labels, and labels somebody predicted for them.
POOL_KEYS = ("x_unlabeled", "y_unlabeled")
#: Numbers of channels that images have.
CHANNELS = (1, 3, 4)


def splits(spec: DataSpec, seed: int) -> Arrays:
    """The splits of the file `spec.path` (see `split_official`).

    Raises
    ------
    FileError
        If the file is missing or malformed, or the sizes asked for exceed the data.
    """
    source = read_npz(Path(spec.path), spec.classes)
    for key in [key for key in source if key.startswith("x_")]:
        source[key] = averaged(source[key], spec.size, spec.path)
    if "x_unlabeled" in source:
        source["x_pool"], source["y_pool"] = source.pop("x_unlabeled"), source.pop("y_unlabeled")
    return split_official(source, spec, seed, spec.path)


def read_npz(path: Path, classes: int | None = None, *, to_measure: bool = False) -> Arrays:
    """A user's arrays `x_train, y_train, x_test, y_test` and, if it has them, `x_unlabeled,
    y_unlabeled`; images brought to uint8 [n, C, H, W], labels to int64 [n].

    Images may lie as [n, H, W], [n, H, W, C] or [n, C, H, W], as uint8, or as floats in [0, 1] or whole
    ones up to 255; labels as integers, whole floats, a column, or one-hot. What could mean two things is
    refused. With `to_measure` training images may be missing, and floats in [0, 1] that are no 255ths stay
    floats.

    Raises
    ------
    FileError
        If the file cannot be read, a key is missing, a shape or dtype is wrong, or a label lies
        outside 0..K-1.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise FileError(
                f"{path}: a single array of shape {loaded.shape}; needed is a file of several, by name: "
                "np.savez(path, x_test=..., y_test=...)"
            )
        with loaded as file:
            keys = KEYS + POOL_KEYS if set(POOL_KEYS) & set(file.files) else KEYS
            if to_measure and not {"x_train", "y_train"} & set(file.files):
                keys = KEYS[2:]
            missing = [key for key in keys if key not in file.files]
            if missing:
                raise FileError(
                    f"{path}: {', '.join(missing)} missing (found: {', '.join(file.files)}); "
                    f"needed are {', '.join(keys)}"
                )
            source = {key: file[key] for key in keys}
    except FileNotFoundError:
        raise FileError(f"data.path: {path}: no such file") from None
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path}: not a readable .npz file of plain arrays ({_reason(error)})") from None
    except Exception as error:  # zlib and struct raise their own on damaged archives
        raise FileError(f"{path}: damaged .npz file ({error})") from None
    parts = [key.removeprefix("x_") for key in keys if key.startswith("x_")]
    for part in parts:
        source[f"x_{part}"] = _images(path, f"x_{part}", source[f"x_{part}"], to_measure)
        source[f"y_{part}"] = _labels(path, f"y_{part}", source[f"y_{part}"], len(source[f"x_{part}"]))
    shapes = {part: source[f"x_{part}"].shape[1:] for part in parts}
    first = parts[0]
    for part, shape in shapes.items():
        if shape != shapes[first]:
            raise FileError(
                f"{path}: x_{first} has images of shape {shapes[first]}, x_{part} of {shape} (C, H, W)"
            )
    if any(_fourth_is_opaque(source[f"x_{part}"]) for part in parts):
        warn(
            f"{path}: the fourth channel of most pixels has its highest value, as transparency has; it is "
            "attacked like the others. If it is that, leave it out: x[:, :3] or x[..., :3]"
        )
    count = classes or int(source[f"y_{first}"].max()) + 1
    for part in parts:
        labels = source[f"y_{part}"]
        if labels.min() < 0 or labels.max() >= count:
            raise FileError(
                f"{path}: y_{part} holds labels from {labels.min()} to {labels.max()}; "
                f"allowed are 0 to {count - 1} ({count} classes)"
            )
    return source


def _reason(error: Exception) -> str:
    """Why a file is not read, in words of ours where NumPy's advise to run what it holds."""
    if "allow_pickle=False" in str(error):
        return "an array of objects; make it one of numbers with np.stack"
    return "neither .npz nor .npy" if "allow_pickle" in str(error) else str(error)


def _images(path: Path, key: str, array: np.ndarray, keep_floats: bool) -> np.ndarray:
    if np.issubdtype(array.dtype, np.floating) and array.size:
        array = _from_floats(path, key, array, keep_floats)
    elif array.dtype != np.uint8:
        raise FileError(
            f"{path}: {key} has dtype {array.dtype}; images must be uint8 (0 to 255) or floats in [0, 1]"
        )
    first, last = (array.ndim == 4 and array.shape[place] in CHANNELS for place in (1, 3))
    if array.ndim not in (3, 4) or 0 in array.shape or (array.ndim == 4 and not first and not last):
        raise FileError(
            f"{path}: {key} has shape {array.shape}; images must be [n, height, width], "
            "[n, height, width, channels] or [n, channels, height, width] with 1, 3 or 4 channels"
        )
    if array.ndim == 3:
        return array[:, None]
    if first and last:  # tiny or narrow images: the layout in which they are square
        _, a, b, c = array.shape
        if (a == b) == (b == c):
            raise FileError(
                f"{path}: {key} has shape {array.shape}, whose channels may be first or last; images as "
                "narrow as that must be square in one of both"
            )
        last = a == b
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2) if last else array)


def _fourth_is_opaque(x: np.ndarray) -> bool:
    return x.shape[1] == 4 and bool((x[:, 3] == (255 if x.dtype == np.uint8 else 1)).mean() > 0.5)


def _from_floats(path: Path, key: str, array: np.ndarray, keep: bool) -> np.ndarray:
    """As uint8 where the values are 255ths in [0, 1] or whole up to 255; else, if `keep`, as float32."""
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):
        words = "contains NaN" if np.isnan(low) else f"has values from {low:.4g} to {high:.4g}"
        raise FileError(
            f"{path}: {key} {words}; images must be uint8 (0 to 255) or floats in [0, 1]: a normalisation "
            "belongs before the network (--mean, --std)"
        )
    scaled = array if high > 1 else array * 255
    whole = np.rint(scaled)
    if 1 < high <= 100 and (whole == scaled).all():
        raise FileError(
            f"{path}: {key} has whole numbers as floats, from {low:.4g} to {high:.4g}: of 255, or of "
            f"{high:.4g}? Divide them by their largest possible value, or give them as uint8 (0 to 255)"
        )
    if np.abs(scaled - whole).max() < 1e-3:
        return whole.astype(np.uint8)
    if keep and high <= 1:
        return array.astype(np.float32)
    raise FileError(
        f"{path}: {key} has values from {low:.4g} to {high:.4g} that are no 255ths and not whole; "
        "images must be uint8 (0 to 255) or floats in [0, 1] made from such"
    )


def _labels(path: Path, key: str, array: np.ndarray, count: int) -> np.ndarray:
    given = array
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    elif array.ndim == 2 and np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all():
        array = array.argmax(axis=1)
    if array.ndim != 1 or len(array) != count:
        raise FileError(f"{path}: {key} has shape {given.shape}; expected ({count},), a label per image")
    whole = np.issubdtype(array.dtype, np.floating) and (array == np.rint(array)).all()
    if not np.issubdtype(array.dtype, np.integer) and not whole:
        nans = np.issubdtype(array.dtype, np.floating) and np.isnan(array).any()
        raise FileError(
            f"{path}: {key} has dtype {array.dtype}{' and contains NaN' if nans else ''}; "
            "labels must be integers"
        )
    return array.astype(np.int64)
