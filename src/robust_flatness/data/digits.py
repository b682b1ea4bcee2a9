"""scikit-learn's handwritten digits: 1,797 grey images of 8x8 in one set, split by seed."""

import numpy as np

from robust_flatness.config import DataSpec
from robust_flatness.data.subsets import stratified
from robust_flatness.seeding import derive_seed


def splits(spec: DataSpec, seed: int) -> dict[str, np.ndarray]:
    """`x_<split>`, `y_<split>`: all four splits are stratified random subsets.

    Raises
    ------
    ConfigError
        If a size cannot be drawn with all classes in it.
    """
    x, y = images()
    sizes = {name: getattr(spec, name) for name in ("test", "early_stopping", "train", "unlabeled")}
    parts = stratified(y, sizes, derive_seed(seed, "splits"))
    arrays = {f"x_{name}": x[index] for name, index in parts.items()}
    arrays |= {f"y_{name}": y[index] for name, index in parts.items()}
    return arrays | {"classes": np.int64(spec.known_classes)}


def images() -> tuple[np.ndarray, np.ndarray]:
    """All images, uint8 [1797, 1, 8, 8] (their 17 levels spread over 0 to 255), and labels [1797]."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    levels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return levels[:, None], digits.target.astype(np.int64)
