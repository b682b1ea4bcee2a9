"""Errors and losses, clean, by PGD and by AutoAttack: the block `robustness`."""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_flatness.config.data import DataSpec
from robust_flatness.config.measures import (
    LEAST_CLASSES,
    AttackSpec,
    AutoAttackSpec,
    CleanTestExamples,
    CleanTrainExamples,
    MeasureSettings,
    TestExamples,
    TrainExamples,
    attack_defaults,
)
from robust_flatness.config.values import Count, Precision
from robust_flatness.measures.base import CHECKPOINTS, MORE_ROBUST, SPLITS, Measure, Metric, Record
from robust_flatness.measures.cost import attack_passes, autoattack_passes
from robust_flatness.measures.examples import BATCH_SIZE, Examples, ball, pgd, splits_of
from robust_flatness.runtime.progress import stage
from robust_flatness.seeding import derive_seed, generator

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_flatness.attacks import PGD
    from robust_flatness.network import Network


class RobustnessSettings(MeasureSettings):
    """Robustness of a checkpoint: PGD for RLoss, AutoAttack for RErr, clean error and loss."""

    attack: AttackSpec = attack_defaults(steps=20, restarts=10)
    autoattack: AutoAttackSpec | None = AutoAttackSpec()
    test_examples: TestExamples
    train_examples: TrainExamples
    """0: the training split is left out."""
    clean_test_examples: CleanTestExamples
    clean_train_examples: CleanTrainExamples
    batch_size: Count = BATCH_SIZE
    precision: Precision = "float32"

    def problems(self, data: DataSpec) -> Iterator[str]:
        yield from super().problems(data)
        classes, budget = data.known_classes, self.autoattack
        if not classes or budget is None:
            return
        if budget.target_classes and budget.target_classes >= classes:
            yield f"autoattack.target_classes: {budget.target_classes} given; at most {classes - 1} possible"
        if "apgd-t" in budget.attacks and classes < LEAST_CLASSES:
            yield (
                f"autoattack.attacks: apgd-t needs at least {LEAST_CLASSES} classes for its loss (DLR), the "
                f"data have {classes}; write version: reduced, attacks: [apgd-ce, fab-t, square]"
            )


def _metric(name: str, label: str, kind: Any, direction: str = "", of: str = "robust") -> Metric:
    return Metric(name, label, kind, direction, splits=SPLITS, count=f"{of}_{{split}}_examples")


METRICS = {
    "err": _metric("err", "Err (%)", "error", of="clean"),
    "rerr_pgd": _metric("rerr_pgd", "RErr, PGD (%)", "error", MORE_ROBUST),
    "rerr_aa": _metric("rerr_aa", "RErr, AutoAttack (%)", "error", MORE_ROBUST),
    "ce": _metric("ce", "CE", "loss", of="clean"),
    "rloss_pgd": _metric("rloss_pgd", "RLoss", "loss", MORE_ROBUST),
    "rloss_aa": _metric("rloss_aa", "CE on AutoAttack's examples", "loss", MORE_ROBUST),
}


@dataclass(frozen=True)
class Losses:
    """Per example: misclassified (bool, [n]) and cross-entropy ([n], nats)."""

    error: "Tensor"
    loss: "Tensor"

    mean_error = property(lambda self: self.error.double().mean().item())
    mean_loss = property(lambda self: self.loss.double().mean().item())


@dataclass(frozen=True)
class Robustness:
    """Errors as fractions in [0, 1], losses in nats; None for an attack that was not run.

    `clean`, `pgd` and `autoattack` hold the values of each example. An example counts as robustly
    misclassified if it is misclassified when clean or at any iterate of the attack.
    """

    clean: Losses
    pgd: Losses | None = None
    autoattack: Losses | None = None

    err = property(lambda self: self.clean.mean_error)
    ce = property(lambda self: self.clean.mean_loss)
    rerr_pgd = property(lambda self: self.pgd and self.pgd.mean_error)
    rloss_pgd = property(lambda self: self.pgd and self.pgd.mean_loss)
    rerr_aa = property(lambda self: self.autoattack and self.autoattack.mean_error)
    rloss_aa = property(lambda self: self.autoattack and self.autoattack.mean_loss)


def evaluate_robustness(
    model: "nn.Module", x: "Tensor", y: "Tensor", *, attack: "PGD | None",
    autoattack: bool | AutoAttackSpec = True, batch_size: int = BATCH_SIZE, seed: int = 0,
    state_path: Path | None = None,
) -> Robustness:  # fmt: skip
    """Err and CE of clean examples, RErr and RLoss by PGD, and RErr by AutoAttack.

    Parameters
    ----------
    model
        Inputs [n, ...] in [0, 1] to logits [n, K]; not changed.
    x, y
        Inputs and labels.
    attack
        PGD; None for clean error and loss only.
    autoattack
        True for the standard version, its settings for another budget, False for none. Its ball is the
        attack's.
    batch_size
        Examples per pass.
    seed
        Source of all random starts.
    state_path
        File in which AutoAttack stores finished attacks (see `run_autoattack`).

    Raises
    ------
    ConfigError
        If AutoAttack is asked for without an attack to take the radius from, or the model or the labels
        cannot be measured; `NonFiniteError` if a logit is NaN or infinite.
    """
    from robust_flatness.attacks.autoattack import check_autoattack, run_autoattack
    from robust_flatness.attacks.pgd import cross_entropy
    from robust_flatness.inputs import warn_of_sigmoid
    from robust_flatness.measures.result import checked, clean_logits
    from robust_flatness.runtime.isolation import isolated

    if autoattack and attack is None:
        raise ValueError("attack: None given, but autoattack takes its radius from it")
    with isolated():
        net, x, y = checked(model, x, y)
        budget = AutoAttackSpec() if autoattack is True else autoattack or None
        if budget is not None:
            check_autoattack(net, x, budget, attack.norm)
        logits = clean_logits(net, x, batch_size)
        warn_of_sigmoid(logits)
        clean = Losses(logits.argmax(dim=1) != y, cross_entropy(logits, y))
        if attack is None:
            return Robustness(clean)
        with stage("RLoss and RErr by PGD"):
            found = attack(net, x, y, batch_size, generator(seed, "pgd"))
        by_pgd = Losses(found.error | clean.error, found.loss.maximum(clean.loss))
        if budget is None:
            return Robustness(clean, by_pgd)
        with stage("RErr by AutoAttack"):
            given = (attack.epsilon, budget, batch_size, seed, state_path, found.x_adv, attack.norm)
            result = run_autoattack(net, x, y, *given)
        # an iterate other than PGD's best may be the misclassified one
        error = result.error | by_pgd.error if "pgd" in budget.attacks else result.error
        return Robustness(clean, by_pgd, Losses(error, result.loss))


def robustness(net: "Network", data: Examples, settings: RobustnessSettings) -> Iterator[Record]:
    """Err, CE, RErr and RLoss on the first test and training examples, with standard errors over examples.
    Losses and errors of single examples go to `data.per_example`."""
    if settings.autoattack:
        data.notes["autoattack"] = settings.autoattack.description
    for split in splits_of(settings):
        examples = data.examples(split, getattr(settings, f"clean_{split}_examples"))
        options = {"attack": None, "autoattack": False, "batch_size": settings.batch_size}
        clean = evaluate_robustness(net, *examples, **options)
        errors, losses = clean.clean.error.int().tolist(), rounded(clean.clean.loss)
        where = {"split": split, "n": len(errors)}
        yield Record("err", 100 * clean.err, standard_error(errors, 100), **where)
        yield Record("ce", clean.ce, standard_error(losses), loss="ce", **where)
        yield from robust_records(net, data, settings, split)


def robust_records(
    net: "Network", data: Examples, settings: RobustnessSettings, split: str
) -> Iterator[Record]:
    """RErr and RLoss on one split."""
    x, y = data.examples(split, getattr(settings, f"{split}_examples"))
    result = evaluate_robustness(
        net, x, y, attack=pgd(settings.attack, settings.precision),
        autoattack=settings.autoattack or False, batch_size=settings.batch_size,
        seed=derive_seed(data.seed, "robustness", split),
        state_path=data.state_path(f"autoattack-{split}") if settings.autoattack else None,
    )  # fmt: skip
    where = {"split": split, **ball(settings.attack), "n": len(x)}
    for name, losses in {"pgd": result.pgd, "aa": result.autoattack}.items():
        if losses is None:
            continue
        errors, values = losses.error.int().tolist(), rounded(losses.loss)
        yield Record(f"rerr_{name}", 100 * losses.mean_error, standard_error(errors, 100), **where)
        yield Record(f"rloss_{name}", losses.mean_loss, standard_error(values), loss="rloss", **where)
        data.per_example(split, {"rloss" if name == "pgd" else "rloss_aa": values, f"rerr_{name}": errors})


def standard_error(values: Sequence[float], scale: float = 1) -> float | None:
    """Standard error of `scale` times the mean of `values`; None for a single value."""
    return scale * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def rounded(losses: "Tensor") -> list[float]:
    """Losses of single examples with 6 significant digits: enough for bootstraps."""
    return [float(f"{loss:.6g}") for loss in losses.tolist()]


def passes(settings: RobustnessSettings, held_out: int, snapshots: int) -> int:
    """Both attacks on both splits of every checkpoint."""
    each = attack_passes(settings.attack)
    each += autoattack_passes(settings.autoattack) if settings.autoattack else 0
    return len(CHECKPOINTS) * (settings.test_examples + settings.train_examples) * each


MEASURE = Measure("robustness", RobustnessSettings, robustness, METRICS, passes)
