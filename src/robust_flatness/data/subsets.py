"""Disjoint index sets of given sizes, each with the classes' shares."""

import numpy as np

from robust_flatness.config import ConfigError


def stratified(labels: np.ndarray, sizes: dict[str, int], seed: int) -> dict[str, np.ndarray]:
    """Disjoint index sets of the given sizes, each with the classes' shares, in random order.

    A part takes from what the parts before it have left, so that another size changes only itself and
    those after it.

    Raises
    ------
    ConfigError
        If a size cannot be drawn with all classes in it.
    """
    from sklearn.model_selection import train_test_split

    rest, parts = np.arange(len(labels)), {}
    for offset, (name, size) in enumerate(sizes.items()):
        if size == 0:
            parts[name] = rest[:0]
            continue
        if size == len(rest):
            parts[name], rest = np.random.default_rng(seed % 2**32).permutation(rest), rest[:0]
            continue
        try:
            parts[name], rest = train_test_split(
                rest, train_size=size, stratify=labels[rest], random_state=(seed + offset) % 2**32
            )
        except ValueError as error:
            raise ConfigError(
                f"data.{name}: {size} examples cannot be drawn with all classes in it and in what is left "
                f"({len(rest)} examples): {error}; choose another size"
            ) from None
    return parts
