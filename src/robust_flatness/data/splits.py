"""From a dataset's source to disjoint splits: training, unlabelled pool, early stopping, test.

The splits belong to the dataset: they are drawn once, by seed, written to one file, and every
job reads its examples from there.
"""

from collections.abc import Callable

import numpy as np

from robust_flatness.config import DataSpec
from robust_flatness.data import digits, fashion, npz

Arrays = dict[str, np.ndarray]

#: Each source gives `x_<split>` uint8 [n, C, H, W] and `y_<split>` int64 [n] of the four splits, the number
#: of `classes`, and `pseudo_labels` of the pool where it has published ones.
SOURCES: dict[str, Callable[[DataSpec, int], Arrays]] = {
    "digits": digits.splits,
    "fashion": fashion.splits,
    "npz": npz.splits,
}


def make_splits(spec: DataSpec, seed: int) -> Arrays:
    """Images uint8 [n, C, H, W] and labels int64 [n] of each split, as `x_<split>`, `y_<split>`.

    How they are drawn is the source's to say: `digits.splits`, `fashion.splits`, `npz.splits`. The pool's
    labels are left out: nothing after this function can read them.

    Raises
    ------
    ConfigError
        If a file is missing or malformed, or the sizes asked for exceed the data.
    """
    splits = SOURCES[spec.name](spec, seed)
    splits.pop("y_unlabeled", None)
    pixels = splits["x_train"].astype(np.float64) / 255
    splits["mean"] = pixels.mean((0, 2, 3))
    # a constant channel would be divided by zero
    splits["std"] = np.maximum(pixels.std((0, 2, 3)), 1e-3)
    return splits
