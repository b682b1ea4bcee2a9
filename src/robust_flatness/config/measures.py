"""Attacks and measures."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from robust_flatness.config.values import Count, Integer, Positive, Precision, Radii, Spec, parse_list


class AttackSpec(Spec):
    """PGD in the L-infinity ball of radius `epsilon` (inputs in [0, 1])."""

    epsilon: Annotated[Positive, Field(le=1)]
    step_size: Positive
    steps: Count
    restarts: Count = 1


class AutoAttackSpec(Spec):
    """AutoAttack; `version: standard` is the library's own, `reduced` the budget given here."""

    version: Literal["standard", "reduced"] = "standard"
    attacks: Annotated[
        tuple[Literal["apgd-ce", "apgd-t", "fab-t", "square"], ...], BeforeValidator(parse_list)
    ] = ("apgd-ce", "apgd-t", "fab-t", "square")
    iterations: Count = 100
    restarts: Count = 1
    queries: Count = 5000
    target_classes: Count | None = None
    """Classes targeted by APGD-T and FAB-T, at most K - 1; None: the library's choice, min(9, K - 1)."""

    @model_validator(mode="after")
    def _check(self) -> "AutoAttackSpec":
        changed = self.model_fields_set - {"version"}
        if self.version == "standard" and changed:
            raise ValueError(
                f"{', '.join(sorted(changed))}: the standard AutoAttack has a fixed budget; "
                "write version: reduced to change it"
            )
        return self

    @property
    def description(self) -> str:
        """The budget in words, for results and tables."""
        if self.version == "standard":
            return "AutoAttack (standard)"
        targets = f", {self.target_classes} target classes" if self.target_classes else ""
        return (
            f"AutoAttack (reduced: {'+'.join(self.attacks)}, {self.iterations} iterations, "
            f"{self.restarts} restart{'s' * (self.restarts > 1)}{targets})"
        )


class RobustnessSpec(Spec):
    """Robustness of a checkpoint: PGD for RLoss, AutoAttack for RErr, clean error and loss."""

    attack: AttackSpec
    autoattack: AutoAttackSpec | None = AutoAttackSpec()
    test_examples: Count
    train_examples: Count
    clean_test_examples: Count
    clean_train_examples: Count
    batch_size: Count = 128
    precision: Precision = "float32"


class AverageFlatnessSpec(Spec):
    """Average-case flatness: first radius the main one, the others the ablation's."""

    xi: Radii
    samples: Count = 10
    clean_samples: Count = 50
    """Samples for the clean loss (flatness in CE)."""
    scope: Literal["dataset", "batch"] = "dataset"
    batch_size: Count = 128


class WorstFlatnessSpec(Spec):
    """Worst-case flatness: first radius the main one, the others the ablation's."""

    xi: Radii
    steps: Count = 20
    restarts: Count = 10
    weight_step: Positive = 0.01
    scope: Literal["dataset", "batch"] = "dataset"
    batch_size: Count = 128


class FlatnessSpec(Spec):
    """Flatness of a checkpoint, average- and worst-case, in RLoss and in CE."""

    attack: AttackSpec
    """Attack of RLoss(w); each sample of the average-case measure attacks with one start."""
    average: AverageFlatnessSpec
    worst: WorstFlatnessSpec
    test_examples: Count
    train_examples: Count
    precision: Precision = "float32"


class HessianSpec(Spec):
    """Extreme eigenvalues of the Hessian of the mean clean loss on the early-stopping images."""

    eigenvalues: Annotated[Integer, Field(ge=2)] = 4
    tolerance: Positive = 0.01
    batch_size: Count = 128


class LandscapeSpec(Spec):
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


class SeriesSpec(Spec):
    """Loss, flatness and eigenvalue at every snapshot of a training."""

    attack: AttackSpec
    average: AverageFlatnessSpec
    worst: WorstFlatnessSpec
    hessian: HessianSpec | None = None
    """Set for the variants of `hessian_series_variants` only."""
    test_examples: Count
    train_examples: Count
    precision: Precision = "float32"


class MeasureSpecs(Spec):
    """What is measured. `hessian`, `landscape` and `series` apply to the variants named."""

    robustness: RobustnessSpec
    flatness: FlatnessSpec
    hessian: HessianSpec | None = None
    hessian_variants: Annotated[tuple[str, ...], BeforeValidator(parse_list)] = ()
    landscape: LandscapeSpec | None = None
    landscape_variants: Annotated[tuple[str, ...], BeforeValidator(parse_list)] = ()
    series: SeriesSpec | None = None
    series_variants: Annotated[tuple[str, ...], BeforeValidator(parse_list)] = ()
    hessian_series_variants: Annotated[tuple[str, ...], BeforeValidator(parse_list)] = ()
