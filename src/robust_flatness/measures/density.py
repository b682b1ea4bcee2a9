"""Density of the eigenvalues of the Hessian: the block `density`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from robust_flatness.config.values import Count, Positive
from robust_flatness.measures.base import SPLITS, Measure, Metric, Record
from robust_flatness.measures.cost import attack_passes
from robust_flatness.measures.curvature import OnBothLosses, objectives
from robust_flatness.measures.examples import Examples

if TYPE_CHECKING:
    from robust_flatness.network import Network

#: Steps of Lanczos' method, and random vectors.
STEPS, VECTORS = 40, 4
METRICS = {
    "density": Metric(
        None, "density of the Hessian's eigenvalues, {loss}", by_loss=True, splits=SPLITS, unnamed="train",
        count="density_{split}_examples",
    )
}  # fmt: skip


class DensitySettings(OnBothLosses):
    """Density of the eigenvalues of the Hessian of the clean and the robust loss."""

    steps: Count = STEPS
    """Steps of Lanczos' method, each a product with the Hessian."""
    vectors: Count = VECTORS
    """Random vectors that the density is averaged over."""
    sigma: Positive = 0.01
    """Standard deviation of the Gaussian kernels, as a fraction of the range of the spectrum."""


def density(net: "Network", data: Examples, settings: DensitySettings) -> Iterator[Record]:
    """Yield the spectral density of both losses on a grid of eigenvalues, the field `coordinate`."""
    from robust_flatness.measures.sharpness.curvature import spectral_density

    for objective, where in objectives(net, data, settings):
        found = spectral_density.of(objective, settings.steps, settings.vectors)
        grid = found.grid(settings.sigma)
        for eigenvalue, value in zip(grid.tolist(), found.at(grid, settings.sigma).tolist(), strict=True):
            yield Record("density", value, coordinate=eigenvalue, **where)


def passes(settings: DensitySettings, held_out: int, snapshots: int) -> int:
    """Return the cost of the Hessian-vector products on both losses, two passes each, and of the attack."""
    each = 2 * 2 * settings.steps * settings.vectors + attack_passes(settings.attack)
    return (settings.train_examples + settings.test_examples) * each


MEASURE = Measure("density", DensitySettings, density, METRICS, passes, ("last",), by_default=())
