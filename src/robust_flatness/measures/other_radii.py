"""Robust error and loss at multiples of the attack's radius: the block `other_radii`."""

from collections.abc import Iterator

from robust_flatness.config import measures as config
from robust_flatness.config.values import Count, Precision, Radii
from robust_flatness.config.variants import BASELINE
from robust_flatness.measures.base import MORE_ROBUST, Examples, Measure, Metric, Network, Record, pgd
from robust_flatness.runtime.progress import track

_COMMON = {"splits": ("test",), "radius": "coordinate", "count": "other_radii_test_examples"}
METRICS = {
    "rerr_pgd_eps": Metric("rerr_pgd_eps", "RErr, PGD (%)", "error", MORE_ROBUST, **_COMMON),
    "rloss_pgd_eps": Metric("rloss_pgd_eps", "RLoss", "loss", MORE_ROBUST, **_COMMON),
}


class OtherRadiiSettings(config.MeasureSettings):
    """RErr and RLoss by PGD at multiples of the attack's radius, on test examples."""

    attack: config.AttackSpec = config.attack_defaults(steps=20, restarts=1)
    """Attack at factor 1; the step size is scaled with the radius."""
    factors: Radii = (0.25, 2.0)
    test_examples: config.TestExamples
    batch_size: Count = config.BATCH_SIZE
    precision: Precision = "float32"

    def passes(self, held_out: int) -> int:
        return len(self.factors) * self.test_examples * self.attack.passes


def other_radii(net: Network, data: Examples, settings: OtherRadiiSettings) -> Iterator[Record]:
    """Yield RErr by PGD and RLoss at each radius; `coordinate` is the factor. Values of single examples are
    those of the split `test_eps_<factor>`."""
    from robust_flatness.measures.losses import evaluate_robustness

    x, y = data.examples("test", settings.test_examples)
    options = {"batch_size": settings.batch_size, "seed": data.derived_seed("other radii"), "loss": data.loss}
    for factor in track(settings.factors, "other radius"):
        attack = settings.attack.scaled(factor)
        options["attack"] = pgd(attack, settings.precision)
        result = evaluate_robustness(net, x, y, autoattack=False, **options)
        where = {"split": "test", **attack.ball, "coordinate": factor, "n": len(x)}
        yield Record("rerr_pgd_eps", 100 * result.rerr_pgd, **where)
        yield Record("rloss_pgd_eps", result.rloss_pgd, **where)
        losses, errors = result.pgd.lists()
        data.example_values[f"test_eps_{factor:g}"] = {"rloss": losses, "rerr_pgd": errors}


MEASURE = Measure("other_radii", OtherRadiiSettings, other_radii, METRICS, by_default=(BASELINE,))
