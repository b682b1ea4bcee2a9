"""Adversarial training and its variants."""

from robust_flatness.training.loop import TrainingError, train
from robust_flatness.training.pseudo_labels import pseudo_label

__all__ = ["TrainingError", "pseudo_label", "train"]
