"""A user's arrays in an .npz file, checked before anything is made of them."""

import zipfile
from pathlib import Path

import numpy as np

from robust_flatness.config import DataSpec
from robust_flatness.data.official import Arrays, averaged, split_official
from robust_flatness.errors import FileError

KEYS = ("x_train", "y_train", "x_test", "y_test")
#: Images without labels, and labels somebody predicted for them.
POOL_KEYS = ("x_unlabeled", "y_unlabeled")


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


def read_npz(path: Path, classes: int | None = None) -> Arrays:
    """A user's arrays `x_train, y_train, x_test, y_test` and, if it has them, `x_unlabeled,
    y_unlabeled`; images brought to uint8 [n, C, H, W].

    Raises
    ------
    FileError
        If the file cannot be read, a key is missing, a shape or dtype is wrong, or a label lies
        outside 0..K-1.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            keys = KEYS + POOL_KEYS if set(POOL_KEYS) & set(file.files) else KEYS
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
        raise FileError(f"{path}: not a readable .npz file of plain arrays ({error})") from None
    except Exception as error:  # zlib and struct raise their own on damaged archives
        raise FileError(f"{path}: damaged .npz file ({error})") from None
    parts = [key.removeprefix("x_") for key in keys if key.startswith("x_")]
    for part in parts:
        source[f"x_{part}"] = _images(path, f"x_{part}", source[f"x_{part}"])
        source[f"y_{part}"] = _labels(path, f"y_{part}", source[f"y_{part}"], len(source[f"x_{part}"]))
    shapes = {part: source[f"x_{part}"].shape[1:] for part in parts}
    for part, shape in shapes.items():
        if shape != shapes["train"]:
            raise FileError(
                f"{path}: x_train has images of shape {shapes['train']}, x_{part} of {shape} (C, H, W)"
            )
    count = classes or int(source["y_train"].max()) + 1
    for part in parts:
        labels = source[f"y_{part}"]
        if labels.min() < 0 or labels.max() >= count:
            raise FileError(
                f"{path}: y_{part} holds labels from {labels.min()} to {labels.max()}; "
                f"allowed are 0 to {count - 1} ({count} classes)"
            )
    return source


def _images(path: Path, key: str, array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8:
        nans = np.issubdtype(array.dtype, np.floating) and np.isnan(array).any()
        raise FileError(
            f"{path}: {key} has dtype {array.dtype}{' and contains NaN' if nans else ''}; "
            "images must be uint8 (0 to 255)"
        )
    if array.ndim not in (3, 4) or 0 in array.shape or (array.ndim == 4 and array.shape[3] not in (1, 3, 4)):
        raise FileError(
            f"{path}: {key} has shape {array.shape}; images must be [n, height, width] or "
            "[n, height, width, channels] with 1, 3 or 4 channels"
        )
    return array[:, None] if array.ndim == 3 else np.ascontiguousarray(array.transpose(0, 3, 1, 2))


def _labels(path: Path, key: str, array: np.ndarray, count: int) -> np.ndarray:
    if array.ndim != 1 or len(array) != count:
        raise FileError(f"{path}: {key} has shape {array.shape}; expected ({count},), a label per image")
    if not np.issubdtype(array.dtype, np.integer):
        nans = np.issubdtype(array.dtype, np.floating) and np.isnan(array).any()
        raise FileError(
            f"{path}: {key} has dtype {array.dtype}{' and contains NaN' if nans else ''}; "
            "labels must be integers"
        )
    return array.astype(np.int64)
