"""Adversarial training and its variants."""

from robust_flatness.training.pseudo_labels import pseudo_label
from robust_flatness.training.run import train

__all__ = ["pseudo_label", "train"]
