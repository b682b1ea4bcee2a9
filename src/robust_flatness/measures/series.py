"""Loss, flatness and eigenvalue throughout a training: the block `series`."""

from collections.abc import Iterator

from robust_flatness.config.measures import AttackSpec, attack_defaults
from robust_flatness.config.variants import BASELINE
from robust_flatness.measures import flatness, robustness
from robust_flatness.measures import hessian as of_hessian
from robust_flatness.measures.base import Examples, Measure, Network, Record

METRICS = {name: robustness.METRICS[name] for name in ("rloss_pgd", "rerr_pgd")} | flatness.METRICS
METRICS["hessian_max"] = of_hessian.METRICS["hessian_max"]


class SeriesSettings(flatness.FlatnessSettings):
    """Loss, flatness and eigenvalue at every snapshot of a training."""

    attack: AttackSpec = attack_defaults(steps=20, restarts=1)
    average: flatness.AverageSettings = flatness.AverageSettings(xi=flatness.AVERAGE.xi[:1])
    worst: flatness.WorstSettings = flatness.WorstSettings(xi=flatness.WORST.xi[:2])
    hessian: of_hessian.HessianSettings | None = None
    """Largest Hessian eigenvalue, the slowest part; for the variants that its own settings name."""

    def passes(self, held_out: int) -> int:
        each = 2 * self.attack.passes + self.average.passes(self.attack) + self.worst.passes()
        eigenvalue = self.hessian.passes(held_out) if self.hessian else 0
        return (self.test_examples + self.train_examples) * each + eigenvalue


def series(net: Network, data: Examples, settings: SeriesSettings) -> Iterator[Record]:
    """Yield loss, flatness and largest eigenvalue of one snapshot."""
    known = flatness.reference(data, settings, "test", "rloss")
    for split in settings.splits:
        for record in robustness.robust_records(net, data, settings, split, settings.worst.batch_size):
            if split == "test" and record.metric == "rloss_pgd":
                known["reference"] = record.value
                if settings.attack.restarts == 1:
                    known["reference_single"] = record.value
            if split == "test" or record.metric == "rloss_pgd":
                yield record
    yield from flatness.flatness(net, data, settings, ["test"], ["rloss"])
    if settings.hessian is not None:
        yield next(of_hessian.hessian(net, data, settings.hessian))


MEASURE = Measure("series", SeriesSettings, series, METRICS, (), by_default=(BASELINE,), of_snapshots=True)
