"""Robust error at other radii of the attack: how far in input space what a measure says reaches."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from robust_flatness.config.measures import AttackSpec, MeasureSpec, Setting
from robust_flatness.config.values import Count, Positive, Precision, check_radii, parse_list
from robust_flatness.config.variants import BASELINE
from robust_flatness.measuring.base import Measure, Measured, pgd
from robust_flatness.measuring.cost import attack_passes
from robust_flatness.runtime.progress import told
from robust_flatness.seeding import derive_seed
from robust_flatness.tables.columns import MORE_ROBUST, Column

if TYPE_CHECKING:
    from robust_flatness.data import Dataset
    from robust_flatness.models.checkpoint import Checkpoint

ERROR = Column(
    "rerr_pgd_eps",
    "RErr, PGD (%)",
    "error",
    splits="both",
    radii=True,
    at="at {xi:g} ε",
    alone=False,
    direction=MORE_ROBUST,
)
LOSS = replace(ERROR, stem="rloss_pgd_eps", words="RLoss", kind="loss")

Factors = Annotated[tuple[Positive, ...], BeforeValidator(parse_list), AfterValidator(check_radii)]


class OtherRadiiSpec(MeasureSpec):
    """RErr by PGD at multiples of the attack's radius, on test examples."""

    attack: AttackSpec
    """At the experiment's own radius; its step is scaled with the radius."""
    factors: Factors = (0.25, 2.0)
    test_examples: Count
    batch_size: Count = 128
    precision: Precision = "float32"

    @classmethod
    def defaults(cls, setting: Setting) -> dict[str, Any]:
        return {"attack": setting.attack(steps=20, restarts=1), "test_examples": min(1000, setting.test)}

    def at(self, factor: float) -> AttackSpec:
        """The attack at a multiple of its radius, at most 1."""
        scaled = {name: factor * getattr(self.attack, name) for name in ("epsilon", "step_size")}
        return self.attack.model_copy(update={**scaled, "epsilon": min(1.0, scaled["epsilon"])})


def other_radii(
    checkpoint: "Checkpoint",
    dataset: "Dataset",
    spec: OtherRadiiSpec,
    seed: int,
    device: str = "cpu",
    state: Path | None = None,
) -> Measured:
    """RErr and RLoss at each radius: `test_rerr_pgd_eps_<factor>`, the share of the first test examples that
    are misclassified clean or at any iterate of PGD, in per cent, and `test_rloss_pgd_eps_<factor>`."""
    from robust_flatness.evaluation import evaluate_robustness

    x = dataset.images("test", spec.test_examples, device)
    y = dataset.labels("test", spec.test_examples, device)
    measured = Measured({"other_radii_test_examples": spec.test_examples})
    for factor in told(spec.factors, "other radius"):
        result = evaluate_robustness(
            checkpoint.inference, x, y,
            attack=pgd(spec.at(factor), spec.precision),
            autoattack=False,
            batch_size=spec.batch_size,
            seed=derive_seed(seed, "other radii"),
        )  # fmt: skip
        measured.values[ERROR.name("test", factor)] = 100 * result.rerr_pgd
        measured.values[LOSS.name("test", factor)] = result.rloss_pgd
    return measured


def passes(spec: OtherRadiiSpec, held_out: int, snapshots: int) -> int:
    """One attack at each radius."""
    return len(spec.factors) * spec.test_examples * attack_passes(spec.attack)


MEASURE = Measure(
    name="other_radii",
    spec=OtherRadiiSpec,
    function=other_radii,
    passes=passes,
    columns=(ERROR, LOSS, Column("other_radii_test_examples", "test examples, other radii", "setting")),
    checkpoints=("last",),
    by_default=(BASELINE,),
)
