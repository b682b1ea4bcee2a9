"""From a dataset's source to disjoint splits: training, unlabelled pool, early stopping, test.

The splits belong to the dataset: they are drawn once, by seed, written to one file, and every
job reads its examples from there.
"""

from collections.abc import Callable

import numpy as np

from robust_flatness.config import ConfigError, DataSpec
from robust_flatness.data import cifar10, digits, fashion, images, npz
from robust_flatness.data.dataset import checksum
from robust_flatness.data.official import CHUNK

Arrays = dict[str, np.ndarray]

#: Each source gives `x_<split>` uint8 [n, C, H, W] and `y_<split>` int64 [n] of the four splits, the number
#: of `classes`, and `pseudo_labels` of the pool where it has published ones. Others are images in files.
SOURCES: dict[str, Callable[[DataSpec, int], Arrays]] = {
    "digits": digits.splits,
    "fashion": fashion.splits,
    "cifar10": cifar10.splits,
    "npz": npz.splits,
}


def make_splits(spec: DataSpec, seed: int) -> Arrays:
    """Images uint8 [n, C, H, W] and labels int64 [n] of each split, as `x_<split>`, `y_<split>`.

    How they are drawn is the source's to say: `digits.splits`, `fashion.splits`, and so on. The pool's
    labels are left out: nothing after this function can read them.

    Raises
    ------
    ConfigError
        If a file is missing or malformed, or the sizes asked for exceed the data.
    """
    splits = SOURCES.get(spec.name, images.splits)(spec, seed)
    splits.pop("y_unlabeled", None)
    splits["mean"], splits["std"] = channel_statistics(splits["x_train"])
    if spec.sha256 is not None and (found := checksum(splits)) != spec.sha256:
        raise ConfigError(
            f"data.sha256: {spec.sha256} given, but the examples read have {found}: they are others"
        )
    return splits


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel of uint8 images [n, C, H, W], scaled to [0, 1].

    From sums of integers: exact, and without a copy of all images as floats. The standard deviation is at
    least 0.001, since a constant channel would be divided by zero.
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
