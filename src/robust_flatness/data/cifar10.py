"""CIFAR-10 from its official files, and extra images with published pseudo-labels."""

import hashlib
from pathlib import Path

import numpy as np

from robust_flatness.config import DataSpec
from robust_flatness.config.data import CIFAR10_FILES, CIFAR10_FOLDER, CIFAR10_TEST, CLASSES
from robust_flatness.data.official import Arrays, averaged, split_official
from robust_flatness.data.pickles import read_pickle
from robust_flatness.errors import FileError

#: Images of a file, and their shape [C, H, W].
BATCH = 10_000
SHAPE = (3, 32, 32)
#: Folder of the files within the official archive.
ARCHIVED = "cifar-10-batches-py"
ALTERNATIVES = (
    f"give a folder that holds the official files (data.path; {CIFAR10_FILES[0]} and so on), or the images "
    "in an .npz file (data.name: npz, with data.path)"
)


def splits(spec: DataSpec, seed: int) -> Arrays:
    """The splits of the official files in `spec.path`, or where they are downloaded (`split_official`).

    Raises
    ------
    FileError
        If a file is missing, altered, damaged or refused, or the sizes asked for exceed the data.
    """
    folder = find_folder(Path(spec.path or CIFAR10_FOLDER))
    if spec.sha256 is None:
        require_official(folder)
    parts = {name: _read(folder / name, spec.size) for name in CIFAR10_FILES}
    training = [parts[name] for name in CIFAR10_FILES if name != CIFAR10_TEST]
    source = {"x_train": np.concatenate([x for x, _ in training])}
    source["y_train"] = np.concatenate([y for _, y in training])
    source["x_test"], source["y_test"] = parts[CIFAR10_TEST]
    if spec.pool:
        source["x_pool"], source["y_pool"] = read_pool(Path(spec.pool), spec.size)
    del parts, training
    return split_official(source, spec, seed, "CIFAR-10")


def find_folder(path: Path) -> Path:
    """The folder of the official files: `path`, or what the official archive unpacks to in it.

    Raises
    ------
    FileError
        If a file is missing; the message names the alternatives.
    """
    for folder in (path, path / ARCHIVED):
        missing = [name for name in CIFAR10_FILES if not (folder / name).exists()]
        if not missing:
            return folder
        if len(missing) < len(CIFAR10_FILES):
            raise FileError(f"{folder}: {', '.join(missing)} missing; {ALTERNATIVES}")
    raise FileError(f"{path}: no files of CIFAR-10 there; {ALTERNATIVES}")


def official_digests() -> dict[str, str]:
    """MD5 of each official file, as torchvision knows them."""
    from torchvision.datasets import CIFAR10

    return dict([*CIFAR10.train_list, *CIFAR10.test_list])


def md5(path: Path) -> str:
    """MD5 of a file: what the official files are published with."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def require_official(folder: Path) -> None:
    """Check the MD5 of each file.

    Raises
    ------
    FileError
        If one is truncated or altered.
    """
    for name, digest in official_digests().items():
        found = md5(folder / name)
        if found != digest:
            raise FileError(
                f"{folder / name}: truncated or altered, its MD5 is {found} instead of {digest}; delete it "
                "and have it downloaded again, or give the checksum of the examples meant (data.sha256)"
            )


def _read(path: Path, size: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [10000, 3, H, W] and labels int64 [10000] of one official file."""
    content = read_pickle(path)
    images, labels = content.get("data"), np.asarray(content.get("labels", ()))
    width = int(np.prod(SHAPE))
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape != (BATCH, width):
        found = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise FileError(f"{path}: 'data' is {found}; expected uint8 ({BATCH}, {width})")
    _require_labels(path, "labels", labels, BATCH)
    return averaged(images.reshape(BATCH, *SHAPE), size, str(path)), labels.astype(np.int64)


def read_pool(path: Path, size: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, 3, H, W] and pseudo-labels int64 [n] of the pickle of Carmon et al. (NeurIPS 2019).

    It holds `data`, uint8 [n, 32, 32, 3], and `extrapolated_targets`, [n]. It is read without running
    anything of it.

    Raises
    ------
    FileError
        If the file is missing, damaged, refused, or holds other arrays.
    """
    content = read_pickle(path)
    images, labels = content.get("data"), np.asarray(content.get("extrapolated_targets", ()))
    _, *sides = SHAPE
    fits = isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.shape[1:] == (*sides, 3)
    if not fits:
        found = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise FileError(f"{path}: 'data' is {found}; expected uint8 (n, 32, 32, 3)")
    _require_labels(path, "extrapolated_targets", labels, len(images))
    return averaged(images.transpose(0, 3, 1, 2), size, str(path)), labels.astype(np.int64)


def _require_labels(path: Path, key: str, labels: np.ndarray, count: int) -> None:
    classes = CLASSES["cifar10"]
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise FileError(
            f"{path}: {key!r} is {labels.dtype} {labels.shape}; expected {count} integers, a label per image"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise FileError(
            f"{path}: {key!r} holds labels from {labels.min()} to {labels.max()}; "
            f"CIFAR-10 has 0 to {classes - 1}"
        )
