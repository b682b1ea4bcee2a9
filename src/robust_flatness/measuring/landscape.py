"""The robust loss along directions in weight space."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from robust_flatness.config.data import DataSpec
from robust_flatness.config.measures import AttackSpec, MeasureSpec, Setting
from robust_flatness.config.values import Count, Integer, Positive, Precision
from robust_flatness.config.variants import BASELINE
from robust_flatness.measuring.base import Measure, Measured, pgd
from robust_flatness.measuring.cost import attack_passes
from robust_flatness.runtime.progress import stage
from robust_flatness.seeding import derive_seed
from robust_flatness.tables.columns import Column

if TYPE_CHECKING:
    from robust_flatness.checkpoints import Checkpoint as Network
    from robust_flatness.data import Dataset


class LandscapeSpec(MeasureSpec):
    """RLoss along directions in weight space, at `points` values of s in [-1, 1]."""

    points: Annotated[Integer, Field(ge=3)] = 51
    attack: AttackSpec
    random_directions: Count = 10
    adversarial_directions: Count = 10
    random_scale: Positive = 0.5
    adversarial_scale: Positive = 0.025
    hessian_scale: Positive = 0.5
    adversarial_steps: Count = 20
    examples: Count = 128
    precision: Precision = "float32"

    @classmethod
    def defaults(cls, setting: Setting) -> dict[str, Any]:
        return {"attack": setting.attack(steps=10, restarts=1), "examples": min(128, setting.test)}

    def limits(self, data: DataSpec) -> Iterator[tuple[str, int, str]]:
        yield "examples", data.count("test"), "data.test"


def landscape(
    checkpoint: "Network",
    dataset: "Dataset",
    spec: LandscapeSpec,
    seed: int,
    device: str = "cpu",
    state: Path | None = None,
) -> Measured:
    """RLoss along random, adversarial and Hessian directions; rows in `details["curves"]`."""
    from robust_flatness.flatness import loss_landscape

    x, y = dataset.images("test", spec.examples, device), dataset.labels("test", spec.examples, device)
    held_out = [getattr(dataset, kind)("early_stopping", device=device) for kind in ("images", "labels")]
    with stage("loss landscape"):
        curves = loss_landscape(
            checkpoint.model, x, y, spec=spec, attack=pgd(spec.attack, spec.precision),
            held_out=held_out, seed=derive_seed(seed, "landscape"), weight_bound=checkpoint.weight_bound,
        )  # fmt: skip
    return Measured({"landscape_examples": len(x)}, {"curves": curves})


def passes(spec: LandscapeSpec, held_out: int, snapshots: int) -> int:
    """The attack at every point of every direction, normalised in two ways."""
    directions = 2 * (spec.random_directions + spec.adversarial_directions + 1)
    return directions * spec.points * spec.examples * attack_passes(spec.attack)


MEASURE = Measure(
    name="landscape",
    spec=LandscapeSpec,
    function=landscape,
    passes=passes,
    columns=(Column("landscape_examples", "test examples of the landscape", "setting"),),
    checkpoints=("last",),
    held_out=True,
    rows="curves",
    row_keys=("direction", "normalisation", "scale", "s"),
    by_default=(BASELINE,),
)
