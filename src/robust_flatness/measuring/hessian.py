"""Extreme eigenvalues of the Hessian."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from robust_flatness.config.measures import MeasureSpec
from robust_flatness.config.values import Count, Integer, Positive
from robust_flatness.config.variants import BASELINE
from robust_flatness.measuring.base import Measure, Measured
from robust_flatness.runtime.progress import stage
from robust_flatness.seeding import derive_seed
from robust_flatness.tables.columns import FLATTER, Column

if TYPE_CHECKING:
    from robust_flatness.checkpoints import Checkpoint as Network
    from robust_flatness.data import Dataset

#: Products with the Hessian until Lanczos has converged at both ends, two passes each.
PRODUCTS = 1000


class HessianSpec(MeasureSpec):
    """Extreme eigenvalues of the Hessian of the mean clean loss on the early-stopping images."""

    eigenvalues: Annotated[Integer, Field(ge=2)] = 4
    tolerance: Positive = 0.01
    batch_size: Count = 128


def hessian(
    checkpoint: "Network",
    dataset: "Dataset",
    spec: HessianSpec,
    seed: int,
    device: str = "cpu",
    state: Path | None = None,
) -> Measured:
    """Extreme eigenvalues of the Hessian of the mean clean loss on the early-stopping images."""
    from robust_flatness.flatness import hessian_eigenvalues

    x, y = dataset.images("early_stopping", device=device), dataset.labels("early_stopping", device=device)
    with stage("eigenvalues of the Hessian"):
        result = hessian_eigenvalues(
            checkpoint.model, x, y,
            k=spec.eigenvalues, tolerance=spec.tolerance, batch_size=spec.batch_size,
            seed=derive_seed(seed, "hessian"),
        )  # fmt: skip
    return Measured(
        {
            "hessian_max": result.largest,
            "hessian_min": result.smallest,
            "convexity": result.convexity,
            "hessian_examples": len(x),
        }
    )


def passes(spec: HessianSpec, held_out: int, snapshots: int) -> int:
    """Products with the Hessian on the images for early stopping."""
    return PRODUCTS * held_out


MEASURE = Measure(
    name="hessian",
    spec=HessianSpec,
    function=hessian,
    passes=passes,
    columns=(
        Column("hessian_max", "largest Hessian eigenvalue", direction=FLATTER, compared=True),
        Column("hessian_min", "smallest Hessian eigenvalue"),
        Column("convexity", "|λmin| / |λmax|"),
        Column("hessian_examples", "held-out examples of the Hessian", "setting"),
    ),
    checkpoints=("last",),
    held_out=True,
    by_default=(BASELINE,),
)
