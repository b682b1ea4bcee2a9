"""The splits of an experiment, drawn once for each seed: every job reads its examples from their file."""

import contextlib
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from robust_flatness.config import DataSpec
from robust_flatness.data import cifar10, images, npz
from robust_flatness.data.dataset import Arrays, checksum
from robust_flatness.data.splits import split_official, stratified, warn_of_missing_classes
from robust_flatness.errors import ConfigError
from robust_flatness.seeding import derive_seed


def digits(spec: DataSpec, seed: int) -> Arrays:
    """Return stratified subsets of scikit-learn's 1,797 digits, 8x8, their 17 grey levels made 0 .. 255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None], digits.target.astype(np.int64)
    sizes = {name: spec.count(name) for name in ("test", "early_stopping", "train", "unlabeled")}
    parts = stratified(y, sizes, derive_seed(seed, "splits"))
    arrays = {f"{kind}_{name}": a[index] for name, index in parts.items() for kind, a in (("x", x), ("y", y))}
    return arrays | {"classes": np.int64(spec.known_classes)}


def fashion(spec: DataSpec, seed: int) -> Arrays:
    """Return the splits of the bundled Fashion-MNIST images, [n, 1, 8, 8]."""
    with as_file(files("robust_flatness.data.fashion") / "fashion8.npz") as path:
        source = npz.read_npz(path)
    return split_official(source, spec, seed, "'fashion'")


#: Readers of the datasets; those of image files are read by `images.splits`. They return `x_<split>` and
#: `y_<split>` of the four splits, `classes`, and published `pseudo_labels` of the pool.
SOURCES: dict[str, Callable[[DataSpec, int], Arrays]] = {
    "digits": digits, "fashion": fashion, "cifar10": cifar10.splits, "npz": npz.splits,
}  # fmt: skip


def known_classes(spec: DataSpec) -> int | None:
    """Return the number of classes of a dataset, that of a file or folder without reading its images; None
    if it is unknown or cannot be read, which is reported when the dataset is prepared."""
    with contextlib.suppress(Exception):
        if spec.classes is None and spec.name == "npz":
            return npz.classes(Path(spec.path))
        if spec.classes is None and spec.name == "folder":
            return len(images.folders(Path(spec.path) / "train"))
    return spec.known_classes


def make_splits(spec: DataSpec, seed: int) -> Arrays:
    """Return `x_<split>`, images uint8 [n, C, H, W], and `y_<split>`, labels int64 [n], of each split
    (`unlabeled`: images alone), the number of `classes`, and the channel statistics `mean` and `std`."""
    splits = SOURCES.get(spec.name, images.splits)(spec, seed)
    splits.pop("y_unlabeled", None)
    splits["mean"], splits["std"] = _channel_statistics(splits["x_train"])
    if spec.sha256 is not None and (found := checksum(splits)) != spec.sha256:
        raise ConfigError(f"data.sha256: {spec.sha256} given, but the splits read have {found}")
    warn_of_missing_classes(splits["y_train"], int(splits["classes"]), "data.train")
    return splits


def _channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation (at least 0.001) of each channel of uint8 images [n, C, H, W] in
    [0, 1], from exact integer sums, without a float copy of all images."""
    count = images.size // images.shape[1]
    total = images.sum((0, 2, 3), dtype=np.int64)
    squares = np.einsum("nchw,nchw->c", images, images, dtype=np.int64)
    # Python's integers do not overflow, and their quotient is rounded once
    pairs = zip(squares.tolist(), total.tolist(), strict=True)
    variances = [(count * s - t * t) / count**2 for s, t in pairs]
    return total / (255 * count), np.maximum(np.sqrt(variances) / 255, 1e-3)
