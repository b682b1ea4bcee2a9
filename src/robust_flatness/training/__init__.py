"""Adversarial training and its variants."""

from robust_flatness.training.loop import train
from robust_flatness.training.pseudo_labels import pseudo_label

__all__ = ["pseudo_label", "train"]
