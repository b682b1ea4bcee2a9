"""scikit-learn's handwritten digits: 1,797 grey images of 8x8 in one set, split by seed."""

import numpy as np

from robust_flatness.config import DataSpec
from robust_flatness.data.dataset import Arrays
from robust_flatness.data.splits import stratified
from robust_flatness.seeding import derive_seed


def splits(spec: DataSpec, seed: int) -> Arrays:
    """Return the splits, stratified random subsets; the 17 grey levels are spread over 0 to 255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None], digits.target.astype(np.int64)
    sizes = {name: spec.count(name) for name in ("test", "early_stopping", "train", "unlabeled")}
    parts = stratified(y, sizes, derive_seed(seed, "splits"))
    arrays = {f"x_{name}": x[index] for name, index in parts.items()}
    arrays |= {f"y_{name}": y[index] for name, index in parts.items()}
    return arrays | {"classes": np.int64(spec.known_classes)}
