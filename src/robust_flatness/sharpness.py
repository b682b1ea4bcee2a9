"""Measures of sharpness, margin and capacity other than the paper's, on the clean and the robust loss.

Each is a function `f(model, x, y, *, loss="ce", batch_size=128, seed=0, **options)` that returns an
`Estimate`; those of the weights alone take the model only.
"""

from robust_flatness.measures.objective import Estimate, Loss, Objective, normalised_logits, of_objective
from robust_flatness.measures.sharpness.curvature import (
    LayerCurvature,
    SpectralDensity,
    layer_curvature,
    spectral_density,
    weight_curvature_index,
)
from robust_flatness.measures.sharpness.derivatives import (
    distance_from_init,
    fisher_rao,
    fisher_trace,
    gradient_norm,
    hessian_eigenvalue,
    hessian_trace,
    input_gradient_norm,
    margin,
    relative_flatness,
    spectral_product,
    weight_norm,
)
from robust_flatness.measures.sharpness.perturbed import (
    adaptive_average,
    adaptive_linf_worst,
    asam,
    pacbayes_sigma,
    sam,
)

#: Name of `Estimate` in measures written for earlier versions.
SharpnessResult = Estimate

__all__ = [
    "Estimate", "LayerCurvature", "Loss", "Objective", "SharpnessResult", "SpectralDensity",
    "adaptive_average", "adaptive_linf_worst", "asam", "distance_from_init", "fisher_rao", "fisher_trace",
    "gradient_norm", "hessian_eigenvalue", "hessian_trace", "input_gradient_norm", "layer_curvature",
    "margin", "normalised_logits", "of_objective", "pacbayes_sigma", "relative_flatness", "sam",
    "spectral_density", "spectral_product", "weight_curvature_index", "weight_norm",
]  # fmt: skip
