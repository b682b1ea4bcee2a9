"""Measures of sharpness, margin and capacity other than the paper's, on the clean and the robust loss.

Each is a function of a network, inputs and labels that returns a `SharpnessResult`, one idea a file.
"""

from robust_flatness.sharpness.adaptive import adaptive_average, adaptive_linf_worst, normalised_logits
from robust_flatness.sharpness.ascent import asam, sam
from robust_flatness.sharpness.base import Loss, Objective, SharpnessResult
from robust_flatness.sharpness.capacity import distance_from_init, spectral_product, weight_norm
from robust_flatness.sharpness.curvature import hessian_eigenvalue, hessian_trace
from robust_flatness.sharpness.gradients import (
    fisher_rao,
    fisher_trace,
    gradient_norm,
    input_gradient_norm,
)
from robust_flatness.sharpness.margin import margin
from robust_flatness.sharpness.pacbayes import pacbayes_sigma
from robust_flatness.sharpness.relative import relative_flatness

__all__ = [
    "Loss",
    "Objective",
    "SharpnessResult",
    "adaptive_average",
    "adaptive_linf_worst",
    "asam",
    "distance_from_init",
    "fisher_rao",
    "fisher_trace",
    "gradient_norm",
    "hessian_eigenvalue",
    "hessian_trace",
    "input_gradient_norm",
    "margin",
    "normalised_logits",
    "pacbayes_sigma",
    "relative_flatness",
    "sam",
    "spectral_product",
    "weight_norm",
]
