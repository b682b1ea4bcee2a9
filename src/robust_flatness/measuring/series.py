"""Loss, flatness and eigenvalue throughout a training."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_flatness.config.measures import Setting
from robust_flatness.config.variants import BASELINE
from robust_flatness.measuring.base import SNAPSHOTS, Measure, Measured
from robust_flatness.measuring.cost import attack_passes
from robust_flatness.measuring.flatness import (
    AverageFlatnessSpec,
    FlatnessSpec,
    WorstFlatnessSpec,
    average_passes,
    flatness,
    worst_passes,
)
from robust_flatness.measuring.hessian import HessianSpec, hessian
from robust_flatness.measuring.robustness import RobustnessSpec, robustness

if TYPE_CHECKING:
    from robust_flatness.checkpoints import Checkpoint as Network
    from robust_flatness.data import Dataset


class SeriesSpec(FlatnessSpec):
    """Loss, flatness and eigenvalue at every snapshot of a training."""

    average: AverageFlatnessSpec = AverageFlatnessSpec(xi=(0.5,))
    worst: WorstFlatnessSpec = WorstFlatnessSpec(xi=(0.003, 0.00075))
    hessian: HessianSpec | None = None
    """The largest eigenvalue, which takes longest; for the variants named in it."""

    @classmethod
    def defaults(cls, setting: Setting) -> dict[str, Any]:
        """On the radii of the per-epoch figures alone."""
        return {
            "attack": setting.attack(steps=20, restarts=1),
            "average": {"xi": [0.5]},
            "worst": {"xi": [0.003, 0.00075]},
            **setting.examples(1000),
        }


def snapshot(
    checkpoint: "Network",
    dataset: "Dataset",
    spec: SeriesSpec,
    seed: int,
    device: str = "cpu",
    state: Path | None = None,
) -> Measured:
    """Loss, flatness and largest eigenvalue of one snapshot: a row of the series."""
    robust = robustness(
        checkpoint, dataset,
        RobustnessSpec(
            attack=spec.attack, autoattack=None,
            test_examples=spec.test_examples, train_examples=spec.train_examples,
            clean_test_examples=spec.test_examples, clean_train_examples=spec.train_examples,
            batch_size=spec.worst.batch_size, precision=spec.precision,
        ),
        seed, device,
    )  # fmt: skip
    values = flatness(
        checkpoint, dataset, spec, seed, device,
        splits=("test",), clean=False, test_rloss=robust.values["test_rloss_pgd"],
    ).values  # fmt: skip
    kept = ("test_rloss_pgd", "train_rloss_pgd", "test_rerr_pgd")
    row = {key: robust.values[key] for key in kept if key in robust.values}
    row |= {key: value for key, value in values.items() if "flatness_rloss" in key}
    if spec.hessian is not None:
        row["hessian_max"] = hessian(checkpoint, dataset, spec.hessian, seed, device).values["hessian_max"]
    return Measured(row, robust.details)


def passes(spec: SeriesSpec, held_out: int, snapshots: int) -> int:
    """Robustness and flatness at every snapshot."""
    each = (
        2 * attack_passes(spec.attack) + average_passes(spec.average, spec.attack) + worst_passes(spec.worst)
    )
    return snapshots * (spec.test_examples + spec.train_examples) * each


MEASURE = Measure(
    name="series",
    spec=SeriesSpec,
    function=snapshot,
    passes=passes,
    columns=(),
    checkpoints=SNAPSHOTS,
    examples=True,
    by_default=(BASELINE,),
)
