"""Attacks on the inputs of a classifier."""

from robust_flatness.attacks.ball import project, random_start
from robust_flatness.attacks.found import Found
from robust_flatness.attacks.pgd import PGD

__all__ = ["PGD", "Found", "project", "random_start"]
