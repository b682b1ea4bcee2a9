"""Extreme eigenvalues of the Hessian of the clean loss: the block `hessian`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from robust_flatness.config.measures import MeasureSettings
from robust_flatness.config.values import Count, Integer, Positive
from robust_flatness.config.variants import BASELINE
from robust_flatness.errors import ConfigError, warn
from robust_flatness.measures.base import FLATTER, Measure, Metric, Record
from robust_flatness.measures.examples import BATCH_SIZE, Examples
from robust_flatness.runtime.progress import stage
from robust_flatness.seeding import derive_seed

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from robust_flatness.attacks.pgd import Loss
    from robust_flatness.network import Network

#: Assumed Hessian-vector products until Lanczos' method converges at both ends, one pass each.
PRODUCTS = 1000


class HessianSettings(MeasureSettings):
    """Extreme eigenvalues of the Hessian of the mean clean loss on the early-stopping images."""

    eigenvalues: Annotated[Integer, Field(ge=2)] = 4
    tolerance: Positive = 0.01
    batch_size: Count = BATCH_SIZE


DEFAULTS = HessianSettings()
_COMMON = {"splits": ("early_stopping",), "unnamed": "early_stopping", "count": "hessian_examples"}
_TOP = {"direction": FLATTER, "compared": True}
METRICS = {
    "hessian_max": Metric("hessian_max", "largest Hessian eigenvalue", **_TOP, **_COMMON),
    "hessian_min": Metric("hessian_min", "smallest Hessian eigenvalue", **_COMMON),
    "convexity": Metric("convexity", "|λmin| / |λmax|", **_COMMON),
}


@dataclass(frozen=True)
class HessianResult:
    """Extreme Hessian eigenvalues, ascending: half from the lower end of the spectrum, half from the upper.

    `vector` is the unit eigenvector of the largest eigenvalue, by parameter name. `converged` is False if an
    eigenvalue near 0 missed the relative tolerance; its error is at most the tolerance times the largest
    eigenvalue.
    """

    eigenvalues: "np.ndarray"
    vector: dict[str, "Tensor"]
    converged: bool = True

    largest = property(lambda self: float(self.eigenvalues[-1]))
    smallest = property(lambda self: float(self.eigenvalues[0]))

    @property
    def convexity(self) -> float:
        """|lambda_min| / |lambda_max|: 0 in a convex region; 0 if both are 0."""
        return abs(self.smallest) / abs(self.largest) if self.smallest else 0.0


def hessian_eigenvalues(
    model: "nn.Module", x: "Tensor", y: "Tensor", k: int = DEFAULTS.eigenvalues,
    tolerance: float = DEFAULTS.tolerance, batch_size: int = DEFAULTS.batch_size, seed: int = 0,
    loss: "Loss | None" = None,
) -> HessianResult:  # fmt: skip
    r"""Compute extreme eigenvalues of :math:`\nabla_w^2 \tfrac1n\sum_i L(f(x_i; w), y_i)` by Lanczos' method.

    The network is in evaluation mode; w are the perturbable parameters with more than one dimension (Stutz et
    al. 2021, Sec. 3.4). Not invariant to rescaling of layers: scaling all convolutions of a network with
    batch norm by s divides their block of the Hessian by s squared.

    Parameters
    ----------
    model
        Inputs [n, ...] to logits [n, K]; not changed.
    x, y
        Inputs and labels.
    k
        Number of eigenvalues, half of them from each end of the spectrum.
    tolerance
        Relative accuracy.
    batch_size
        Examples per pass.
    seed
        Random seed of the start vector.
    loss
        L, as in `average_flatness`, twice differentiable; None for the cross-entropy.

    Raises
    ------
    ConfigError
        If an argument is out of range, no parameter has more than one dimension, or the Hessian is not finite
        or not symmetric.
    """
    import numpy as np

    from robust_flatness.attacks.pgd import cross_entropy
    from robust_flatness.measures.result import checked
    from robust_flatness.measures.spectrum import Hessian, extreme_eigenvalues
    from robust_flatness.runtime.isolation import isolated

    if not tolerance > 0:
        raise ConfigError(f"tolerance: {tolerance} given, but it must be > 0")
    with isolated():
        net, x, y = checked(model, x, y, loss)
        names = [name for name, weight in net.weights().items() if weight.ndim > 1]
        if not names:
            raise ConfigError("model: no weights of more than one dimension, besides normalisation layers")
        hessian = Hessian(net, names, x, y, batch_size, loss or cross_entropy)
        size = hessian.shape[0]
        if not 2 <= k < size:
            raise ConfigError(f"k: {k} given; allowed are 2 to {size - 1}, below the number of weights")
        start = np.random.default_rng(derive_seed(seed, "lanczos")).standard_normal(size)
        values, vectors, converged = extreme_eigenvalues(hessian, k, tolerance, start)
    if not converged:
        warn(f"Hessian: eigenvalues near 0 are known to {tolerance:g} of the largest ({values[-1]:.3g}) only")
    return HessianResult(values, hessian.by_name(vectors[:, -1]), converged)


def hessian(net: "Network", data: Examples, settings: HessianSettings) -> Iterator[Record]:
    """Yield extreme eigenvalues of the Hessian of the mean clean loss on the early-stopping images."""
    x, y = data.examples("early_stopping")
    options = (settings.eigenvalues, settings.tolerance, settings.batch_size)
    with stage("eigenvalues of the Hessian"):
        result = hessian_eigenvalues(net, x, y, *options, derive_seed(data.seed, "hessian"), data.loss)
    values = (result.largest, result.smallest, result.convexity)
    for metric, value in zip(METRICS, values, strict=True):
        yield Record(metric, value, loss="ce", split="early_stopping", n=len(x))


def passes(settings: HessianSettings, held_out: int, snapshots: int) -> int:
    """Return the cost of the Hessian-vector products on the early-stopping images."""
    return PRODUCTS * held_out


MEASURE = Measure(
    "hessian", HessianSettings, hessian, METRICS, passes,
    checkpoints=("last",), by_default=(BASELINE,), held_out=True,
)  # fmt: skip
