"""Density of the eigenvalues of the Hessian: the block `density`."""

from collections.abc import Iterator

from robust_flatness.config.measures import SPLITS
from robust_flatness.config.values import Count, Positive
from robust_flatness.measures.base import Examples, Measure, Metric, Network, OnBothLosses, Record

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

    def passes(self, held_out: int) -> int:
        each = 2 * 2 * self.steps * self.vectors + self.attack.passes  # a product takes two passes
        return (self.train_examples + self.test_examples) * each


def density(net: Network, data: Examples, settings: DensitySettings) -> Iterator[Record]:
    """Yield the spectral density of both losses on a grid of eigenvalues, the field `coordinate`."""
    from robust_flatness.measures.sharpness.curvature import spectral_density

    for split in settings.splits:
        for objective, where in data.objectives(net, split, settings):
            found = spectral_density.of(objective, settings.steps, settings.vectors)
            grid = found.grid(settings.sigma)
            for eigenvalue, value in zip(grid.tolist(), found.at(grid, settings.sigma).tolist(), strict=True):
                yield Record("density", value, coordinate=eigenvalue, **where)


MEASURE = Measure("density", DensitySettings, density, METRICS, by_default=())
