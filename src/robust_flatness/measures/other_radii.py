"""Robust error and loss at multiples of the attack's radius: the block `other_radii`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from robust_flatness.config.measures import AttackSpec, MeasureSettings, TestExamples, attack_defaults
from robust_flatness.config.values import Count, Precision, Radii
from robust_flatness.config.variants import BASELINE
from robust_flatness.measures.base import MORE_ROBUST, Measure, Metric, Record
from robust_flatness.measures.cost import attack_passes
from robust_flatness.measures.examples import BATCH_SIZE, Examples, ball, pgd
from robust_flatness.measures.robustness import evaluate_robustness, rounded
from robust_flatness.runtime.progress import track
from robust_flatness.seeding import derive_seed

if TYPE_CHECKING:
    from robust_flatness.network import Network

_COMMON = {"splits": ("test",), "radius": "coordinate", "count": "other_radii_test_examples"}
METRICS = {
    "rerr_pgd_eps": Metric("rerr_pgd_eps", "RErr, PGD (%)", "error", MORE_ROBUST, **_COMMON),
    "rloss_pgd_eps": Metric("rloss_pgd_eps", "RLoss", "loss", MORE_ROBUST, **_COMMON),
}


class OtherRadiiSettings(MeasureSettings):
    """RErr and RLoss by PGD at multiples of the attack's radius, on test examples."""

    attack: AttackSpec = attack_defaults(steps=20, restarts=1)
    """Attack at factor 1; the step size is scaled with the radius."""
    factors: Radii = (0.25, 2.0)
    test_examples: TestExamples
    batch_size: Count = BATCH_SIZE
    precision: Precision = "float32"

    def at(self, factor: float) -> AttackSpec:
        """Return the attack at a multiple of its radius, at most 1 in the L-infinity norm."""
        epsilon, step_size = factor * self.attack.epsilon, factor * self.attack.step_size
        epsilon = min(1.0, epsilon) if self.attack.norm == "linf" else epsilon
        return self.attack.model_copy(update={"epsilon": epsilon, "step_size": step_size})


def other_radii(net: "Network", data: Examples, settings: OtherRadiiSettings) -> Iterator[Record]:
    """Yield RErr by PGD and RLoss at each radius; `coordinate` is the factor. Values of single examples are
    those of the split `test_eps_<factor>`."""
    x, y = data.examples("test", settings.test_examples)
    options = {"batch_size": settings.batch_size, "seed": derive_seed(data.seed, "other radii")}
    options["loss"] = data.loss
    for factor in track(settings.factors, "other radius"):
        attack = pgd(settings.at(factor), settings.precision)
        result = evaluate_robustness(net, x, y, attack=attack, autoattack=False, **options)
        where = {"split": "test", **ball(attack), "coordinate": factor, "n": len(x)}
        yield Record("rerr_pgd_eps", 100 * result.rerr_pgd, **where)
        yield Record("rloss_pgd_eps", result.rloss_pgd, **where)
        values = {"rloss": rounded(result.pgd.loss), "rerr_pgd": result.pgd.error.int().tolist()}
        data.per_example(f"test_eps_{factor:g}", values)


MEASURE = Measure(
    "other_radii", OtherRadiiSettings, other_radii, METRICS,
    lambda s, held_out, snapshots: len(s.factors) * s.test_examples * attack_passes(s.attack),
    checkpoints=("last",), by_default=(BASELINE,),
)  # fmt: skip
