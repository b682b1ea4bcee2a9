"""Robustness of one network: clean and robust error and loss."""

from robust_flatness.attacks import Found as Losses
from robust_flatness.measures.losses import Robustness, evaluate_robustness

__all__ = ["Losses", "Robustness", "evaluate_robustness"]
