"""The splits of an experiment: training images, unlabelled pool, early stopping, test images.

They are drawn once for each seed and written to one file, from which every job reads its examples.
"""

from collections.abc import Callable

import numpy as np

from robust_flatness.config import ConfigError, DataSpec
from robust_flatness.data import cifar10, digits, fashion, images, npz
from robust_flatness.data.dataset import Arrays, checksum
from robust_flatness.data.splits import CHUNK, warn_of_missing_classes

#: Functions that return `x_<split>` uint8 [n, C, H, W] and `y_<split>` int64 [n] of the four splits,
#: `classes`, and published `pseudo_labels` of the pool. Other names are folders or torchvision's datasets.
SOURCES: dict[str, Callable[[DataSpec, int], Arrays]] = {
    "digits": digits.splits,
    "fashion": fashion.splits,
    "cifar10": cifar10.splits,
    "npz": npz.splits,
}


def make_splits(spec: DataSpec, seed: int) -> Arrays:
    """Return `x_<split>`, images uint8 [n, C, H, W], and `y_<split>`, labels int64 [n], of each split but
    without labels of `unlabeled`, and the channel statistics `mean` and `std`.

    Raises
    ------
    ConfigError
        If a file is missing or malformed, the sizes exceed the data, or the checksum is not `spec.sha256`.
    """
    splits = SOURCES.get(spec.name, images.splits)(spec, seed)
    splits.pop("y_unlabeled", None)
    splits["mean"], splits["std"] = channel_statistics(splits["x_train"])
    if spec.sha256 is not None and (found := checksum(splits)) != spec.sha256:
        raise ConfigError(f"data.sha256: {spec.sha256} given, but the splits read have {found}")
    warn_of_missing_classes(splits["y_train"], int(splits["classes"]), "data.train")
    return splits


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each channel of uint8 images [n, C, H, W], scaled to [0, 1].

    They are computed from sums of integers: exactly, and without a float copy of all images. The standard
    deviation is at least 0.001, so that images with a constant channel can be normalised.
    """
    channels = images.shape[1]
    total, squares = np.zeros(channels, dtype=np.int64), np.zeros(channels, dtype=np.int64)
    for start in range(0, len(images), CHUNK):
        part = images[start : start + CHUNK].astype(np.int64)
        total += part.sum((0, 2, 3))
        squares += (part**2).sum((0, 2, 3))
    count = images.size // channels
    mean = [value / (255 * count) for value in total.tolist()]
    # Python's integers do not overflow, and their quotient is rounded once
    variances = [
        (count * s - t * t) / count**2 for s, t in zip(squares.tolist(), total.tolist(), strict=True)
    ]
    return np.array(mean), np.maximum(np.sqrt(variances) / 255, 1e-3)
