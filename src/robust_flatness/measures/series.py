"""Loss, flatness and eigenvalue throughout a training: the block `series`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from robust_flatness.config.measures import AttackSpec, attack_defaults
from robust_flatness.config.variants import BASELINE
from robust_flatness.measures import flatness, robustness
from robust_flatness.measures.base import SNAPSHOTS, Measure, Record
from robust_flatness.measures.cost import attack_passes
from robust_flatness.measures.examples import Examples, splits_of
from robust_flatness.measures.hessian import METRICS as OF_HESSIAN
from robust_flatness.measures.hessian import HessianSettings, hessian
from robust_flatness.measures.hessian import passes as hessian_passes

if TYPE_CHECKING:
    from robust_flatness.network import Network

METRICS = {name: robustness.METRICS[name] for name in ("rloss_pgd", "rerr_pgd")} | flatness.METRICS
METRICS["hessian_max"] = OF_HESSIAN["hessian_max"]


class SeriesSettings(flatness.FlatnessSettings):
    """Loss, flatness and eigenvalue at every snapshot of a training."""

    attack: AttackSpec = attack_defaults(steps=20, restarts=1)
    average: flatness.AverageSettings = flatness.AverageSettings(xi=flatness.AVERAGE.xi[:1])
    worst: flatness.WorstSettings = flatness.WorstSettings(xi=flatness.WORST.xi[:2])
    hessian: HessianSettings | None = None
    """Largest Hessian eigenvalue, the slowest part; for the variants that its own settings name."""


def series(net: "Network", data: Examples, settings: SeriesSettings) -> Iterator[Record]:
    """Yield loss, flatness and largest eigenvalue of one snapshot."""
    known = flatness.reference(data, settings, "test", "rloss")
    for split in splits_of(settings):
        for record in robustness.robust_records(net, data, settings, split, settings.worst.batch_size):
            if split == "test" and record.metric == "rloss_pgd":
                known["reference"] = record.value
                if settings.attack.restarts == 1:
                    known["reference_single"] = record.value
            if split == "test" or record.metric == "rloss_pgd":
                yield record
    yield from flatness.flatness(net, data, settings, ["test"], ["rloss"])
    if settings.hessian is not None:
        yield next(hessian(net, data, settings.hessian))


def passes(settings: SeriesSettings, held_out: int, snapshots: int) -> int:
    """Return the cost of robustness, flatness and the Hessian at every snapshot."""
    once, average = attack_passes(settings.attack), settings.average.passes(settings.attack)
    each = 2 * once + average + settings.worst.passes()
    of_hessian = hessian_passes(settings.hessian, held_out, snapshots) if settings.hessian else 0
    return snapshots * ((settings.test_examples + settings.train_examples) * each + of_hessian)


MEASURE = Measure(
    "series", SeriesSettings, series, METRICS, passes, checkpoints=SNAPSHOTS, by_default=(BASELINE,)
)
