"""Flatness of the loss around a network's weights."""

from robust_flatness.flatness.average import average_flatness
from robust_flatness.flatness.hessian import HessianResult, hessian_eigenvalues
from robust_flatness.flatness.landscape import loss_landscape
from robust_flatness.flatness.neighborhood import Neighborhood, perturbed_parameters
from robust_flatness.flatness.result import FlatnessResult
from robust_flatness.flatness.scaling import scale_convolutions
from robust_flatness.flatness.worst import worst_flatness

__all__ = [
    "FlatnessResult",
    "HessianResult",
    "Neighborhood",
    "average_flatness",
    "hessian_eigenvalues",
    "loss_landscape",
    "perturbed_parameters",
    "scale_convolutions",
    "worst_flatness",
]
