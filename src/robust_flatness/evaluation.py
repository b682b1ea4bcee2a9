"""Robustness of one network: clean and robust error and loss."""

from robust_flatness.measures.robustness import Losses, Robustness, evaluate_robustness

__all__ = ["Losses", "Robustness", "evaluate_robustness"]
