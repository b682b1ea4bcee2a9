"""Robustness: errors and losses, clean and under attack."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_flatness.config.data import DataSpec
from robust_flatness.config.measures import (
    LEAST_CLASSES,
    AttackSpec,
    AutoAttackSpec,
    MeasureSpec,
    Setting,
)
from robust_flatness.config.values import Count, Precision, Size
from robust_flatness.measuring.base import CHECKPOINTS, SPLITS, Measure, Measured, pgd, splits_of
from robust_flatness.measuring.cost import attack_passes, autoattack_passes
from robust_flatness.seeding import derive_seed
from robust_flatness.tables.columns import MORE_ROBUST, Column

if TYPE_CHECKING:
    from torch import Tensor

    from robust_flatness.checkpoints import Checkpoint as Network
    from robust_flatness.data import Dataset


class RobustnessSpec(MeasureSpec):
    """Robustness of a checkpoint: PGD for RLoss, AutoAttack for RErr, clean error and loss."""

    attack: AttackSpec
    autoattack: AutoAttackSpec | None = AutoAttackSpec()
    test_examples: Count
    train_examples: Size
    """0: the training split is left out."""
    clean_test_examples: Count
    clean_train_examples: Size
    batch_size: Count = 128
    precision: Precision = "float32"

    @classmethod
    def defaults(cls, setting: Setting) -> dict[str, Any]:
        robust, clean = setting.examples(1000), setting.examples(10_000, "clean_")
        return {"attack": setting.attack(steps=20, restarts=10), **robust, **clean}

    def problems(self, data: DataSpec) -> Iterator[str]:
        targets = self.autoattack and self.autoattack.target_classes
        if targets and data.known_classes and targets >= data.known_classes:
            yield (
                f"autoattack.target_classes: {targets} given; at most {data.known_classes - 1} with "
                f"{data.known_classes} classes"
            )
        targeted = self.autoattack and "apgd-t" in self.autoattack.attacks
        if targeted and data.known_classes and data.known_classes < LEAST_CLASSES:
            yield (
                f"autoattack.attacks: apgd-t needs at least {LEAST_CLASSES} classes for its loss (DLR), the "
                f"data have {data.known_classes}; write version: reduced, attacks: [apgd-ce, fab-t, square]"
            )


def robustness(
    checkpoint: "Network",
    dataset: "Dataset",
    spec: RobustnessSpec,
    seed: int,
    device: str = "cpu",
    state: Path | None = None,
) -> Measured:
    """Err, CE, RErr and RLoss on the first test and training examples.

    Robust losses and errors of single examples are kept in `details["examples"]`, by split.

    `state` is a directory in which AutoAttack keeps what it has finished, to go on from there
    after an interruption.
    """
    from robust_flatness.evaluation import evaluate_robustness

    measured = Measured()
    for split in splits_of(spec):
        count = getattr(spec, f"{split}_examples")
        x, y = dataset.images(split, count, device), dataset.labels(split, count, device)
        result = evaluate_robustness(
            checkpoint.network, x, y,
            attack=pgd(spec.attack, spec.precision),
            autoattack=spec.autoattack or False,
            batch_size=spec.batch_size,
            seed=derive_seed(seed, "robustness", split),
            state_path=state / f"autoattack-{checkpoint.name}-{split}" if state and spec.autoattack else None,
        )  # fmt: skip
        clean_count = getattr(spec, f"clean_{split}_examples")
        clean = evaluate_robustness(
            checkpoint.network,
            dataset.images(split, clean_count, device),
            dataset.labels(split, clean_count, device),
            attack=None, autoattack=False, batch_size=spec.batch_size, seed=0,
        )  # fmt: skip
        measured.values |= {
            f"{split}_err": 100 * clean.err,
            f"{split}_ce": clean.ce,
            f"{split}_rerr_pgd": 100 * result.rerr_pgd,
            f"{split}_rloss_pgd": result.rloss_pgd,
            f"robust_{split}_examples": count,
            f"clean_{split}_examples": clean_count,
        }
        examples = {"rloss": rounded(result.pgd.loss), "rerr_pgd": result.pgd.error.int().tolist()}
        if spec.autoattack:
            examples["rerr_aa"] = result.autoattack.error.int().tolist()
            examples["rloss_aa"] = rounded(result.autoattack.loss)
            measured.values |= {
                f"{split}_rerr_aa": 100 * result.rerr_aa,
                f"{split}_rloss_aa": result.rloss_aa,
                "autoattack": spec.autoattack.description,
            }
        measured.details.setdefault("examples", {})[split] = examples
    return measured


def rounded(losses: "Tensor") -> list[float]:
    """Losses of single examples with 6 significant digits: enough for bootstraps, a third of the bytes."""
    return [float(f"{loss:.6g}") for loss in losses.tolist()]


def passes(spec: RobustnessSpec, held_out: int, snapshots: int) -> int:
    """Both attacks on both splits of every checkpoint."""
    each = attack_passes(spec.attack) + (autoattack_passes(spec.autoattack) if spec.autoattack else 0)
    return len(CHECKPOINTS) * (spec.test_examples + spec.train_examples) * each


MEASURE = Measure(
    name="robustness",
    spec=RobustnessSpec,
    function=robustness,
    passes=passes,
    columns=(
        Column("err", "Err (%)", "error", splits="both", spread=True),
        Column("rerr_pgd", "RErr, PGD (%)", "error", splits="both", spread=True, direction=MORE_ROBUST),
        Column("rerr_aa", "RErr, AutoAttack (%)", "error", splits="both", spread=True, direction=MORE_ROBUST),
        Column("ce", "CE", "loss", splits="both", spread=True),
        Column("rloss_pgd", "RLoss", "loss", splits="both", spread=True, direction=MORE_ROBUST),
        Column("rloss_aa", "CE on AutoAttack's examples", "loss", splits="both", direction=MORE_ROBUST),
        Column("autoattack", "AutoAttack's budget", "word"),
        *(
            Column(f"{what}_{split}_examples", f"{split} examples, {what}", "setting")
            for what in ("clean", "robust")
            for split in SPLITS
        ),
    ),
    examples=True,
)
