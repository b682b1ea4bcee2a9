"""Extreme eigenvalues of the Hessian of the clean loss: the block `hessian`."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from robust_flatness.config.measures import BATCH_SIZE, MeasureSettings
from robust_flatness.config.values import Count, Integer, Positive
from robust_flatness.config.variants import BASELINE
from robust_flatness.measures.base import FLATTER, Examples, Measure, Metric, Network, Record

#: Assumed Hessian-vector products until Lanczos' method converges at both ends, one pass each.
PRODUCTS = 1000


class HessianSettings(MeasureSettings):
    """Extreme eigenvalues of the Hessian of the mean clean loss on the early-stopping images."""

    eigenvalues: Annotated[Integer, Field(ge=2)] = 4
    tolerance: Positive = 0.01
    batch_size: Count = BATCH_SIZE

    def passes(self, held_out: int) -> int:
        return PRODUCTS * held_out


DEFAULTS = HessianSettings()
_COMMON = {"splits": ("early_stopping",), "unnamed": "early_stopping", "count": "hessian_examples"}
METRICS = {
    "hessian_max": Metric(
        "hessian_max", "largest Hessian eigenvalue", "number", FLATTER, compared=True, **_COMMON
    ),
    "hessian_min": Metric("hessian_min", "smallest Hessian eigenvalue", **_COMMON),
    "convexity": Metric("convexity", "|λmin| / |λmax|", **_COMMON),
}


def hessian(net: Network, data: Examples, settings: HessianSettings) -> Iterator[Record]:
    """Yield extreme eigenvalues of the Hessian of the mean clean loss on the early-stopping images."""
    from robust_flatness.measures.spectrum import hessian_eigenvalues

    x, y = data.examples("early_stopping")
    options = (settings.eigenvalues, settings.tolerance, settings.batch_size)
    result = hessian_eigenvalues(net, x, y, *options, data.derived_seed("hessian"), data.loss)
    for metric, value in zip(METRICS, (result.largest, result.smallest, result.convexity), strict=True):
        yield Record(metric, value, loss="ce", split="early_stopping", n=len(x))


MEASURE = Measure("hessian", HessianSettings, hessian, METRICS, by_default=(BASELINE,), held_out=True)
