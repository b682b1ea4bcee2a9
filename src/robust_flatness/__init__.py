"""Adversarial training, and measures of robustness and of the flatness of the robust loss.

After D. Stutz, M. Hein, B. Schiele, "Relating Adversarially Robust Generalization to Flat
Minima", ICCV 2021.
"""

from typing import Any

from robust_flatness.version import __version__

__all__ = ["__version__", "load_model"]


def load_model(model: str, weights: Any = None, *, mean: Any = None, std: Any = None) -> Any:
    """Load a network in evaluation mode; see `robust_flatness.loading.load_model`."""
    from robust_flatness import loading  # imports torch, which planning does without

    return loading.load_model(model, weights, mean=mean, std=std)
